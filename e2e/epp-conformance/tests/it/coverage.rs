//! Rows of the reference without a case are known, each with its reason.

use std::collections::BTreeSet;

use llmd_epp_conformance::coverage::coverage;
use llmd_epp_conformance::suite::cases;

#[test]
fn rows_without_a_case_are_listed_and_rows_with_one_keep_it() {
    let coverage = coverage(&cases().expect("readable cases")).expect("known rows");
    let without = coverage.without();
    let excused: BTreeSet<&str> = coverage.excused.keys().map(String::as_str).collect();
    let lost: Vec<&&str> = without.difference(&excused).collect();
    assert!(
        lost.is_empty(),
        "these rows have no case; write one, or say in uncovered.yaml why there is none: {lost:#?}"
    );
    let stale: Vec<&&str> = excused.difference(&without).collect();
    assert!(
        stale.is_empty(),
        "these rows have a case or are unknown; take them out of uncovered.yaml: {stale:#?}"
    );
    for (row, reason) in &coverage.excused {
        assert!(reason.split(' ').count() > 2, "{row} needs a reason in words");
    }
}
