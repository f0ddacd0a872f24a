//! Our picker against the whole suite.

use std::collections::BTreeSet;

use llmd_e2e::process::llmd_bin;
use llmd_epp_conformance::case::Profile;
use llmd_epp_conformance::report::{Implementation, Report, Verdict};
use llmd_epp_conformance::rig::Binary;
use llmd_epp_conformance::run::{Options, Target, run};
use llmd_epp_conformance::stream::PATIENCE;
use llmd_epp_conformance::suite::cases;

/// What our picker refuses by name. A line goes when the plugin comes.
const UNSUPPORTED: &[&str] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn the_picker_conforms() {
    let options = Options {
        target: Target::Binary(Binary {
            program: llmd_bin(),
            // The reference is upstream's timing of load and prefixes; the other one has tests of its own.
            arguments: vec!["epp".to_owned(), "--upstream-timing".to_owned()],
            config: None,
        }),
        profile: Profile::Llmd,
        jobs: 4,
        patience: PATIENCE,
    };
    let results = run(cases().expect("readable cases"), options)
        .await
        .expect("a run");
    let report = Report::new(Implementation::default(), Profile::Llmd, results);
    assert!(report.failed().is_empty(), "{report}");
    let lacks = |reason: &str| {
        let named = reason
            .rsplit_once('\'')
            .and_then(|(before, _)| before.rsplit_once('\''));
        named.map_or(reason, |(_, name)| name).to_owned()
    };
    let unsupported: BTreeSet<String> = report
        .cases
        .iter()
        .filter_map(|case| match &case.verdict {
            Verdict::Unsupported { reason } => Some(lacks(reason)),
            _ => None,
        })
        .collect();
    let known: BTreeSet<String> = UNSUPPORTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(unsupported, known, "what the picker lacks is another list now");
    let skipped = report
        .cases
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::Skipped { .. }));
    assert_eq!(skipped.count(), 0, "{report}");
}
