//! What came out, as a table for people and as YAML for records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::case::{Profile, Variant};

/// How a case came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed {
        /// What is wrong.
        failures: Vec<String>,
    },
    /// The picker refused the configuration because it lacks something that it names.
    Unsupported {
        /// What it said.
        reason: String,
    },
    /// Not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// `group/case`.
    pub name: String,
    /// Rows of the reference.
    pub sheet: Vec<String>,
    /// How it came out.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whose way was met, where pickers differ.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub variants: BTreeSet<Variant>,
}

/// Who was tested.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Implementation {
    /// Name of the project.
    pub project: String,
    /// Its version.
    pub version: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `EndpointPickerConformanceReport`
    pub kind: &'static str,
    /// When, in UTC.
    pub date: String,
    /// Version of the suite.
    pub suite_version: &'static str,
    /// Who was tested.
    pub implementation: Implementation,
    /// Whose ways were accepted.
    pub profile: Profile,
    /// Cases per result.
    pub statistics: BTreeMap<&'static str, usize>,
    /// Cases per section of the reference and result.
    pub sections: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// The cases.
    pub cases: Vec<CaseReport>,
}

impl Verdict {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Unsupported { .. } => "unsupported",
            Self::Skipped { .. } => "skipped",
        }
    }
}

impl Report {
    /// Counts and sorts.
    pub fn new(implementation: Implementation, profile: Profile, mut cases: Vec<CaseReport>) -> Self {
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        let mut statistics: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut sections: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for case in &cases {
            let word = case.verdict.word();
            *statistics.entry(word).or_default() += 1;
            let of_case: BTreeSet<&str> = case
                .sheet
                .iter()
                .filter_map(|row| row.split_once('/'))
                .map(|(section, _)| section)
                .collect();
            for section in of_case {
                let section = sections.entry(section.to_owned()).or_default();
                *section.entry(word).or_default() += 1;
            }
        }
        Self {
            kind: "EndpointPickerConformanceReport",
            date: utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            suite_version: env!("CARGO_PKG_VERSION"),
            implementation,
            profile,
            statistics,
            sections,
            cases,
        }
    }

    /// The cases that failed.
    pub fn failed(&self) -> Vec<&CaseReport> {
        let failed = self.cases.iter();
        failed
            .filter(|case| matches!(case.verdict, Verdict::Failed { .. }))
            .collect()
    }

    fn count(&self, word: &str) -> usize {
        self.statistics.get(word).copied().unwrap_or_default()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>7} {:>7} {:>12} {:>8}",
            "section", "passed", "failed", "unsupported", "skipped"
        )?;
        for (section, words) in &self.sections {
            let count = |word: &str| words.get(word).copied().unwrap_or_default();
            writeln!(
                f,
                "{section:<16} {:>7} {:>7} {:>12} {:>8}",
                count("passed"),
                count("failed"),
                count("unsupported"),
                count("skipped")
            )?;
        }
        for case in &self.cases {
            match &case.verdict {
                Verdict::Passed => {}
                Verdict::Failed { failures } => {
                    writeln!(f, "\nFAILED {} ({})", case.name, case.sheet.join(", "))?;
                    for failure in failures {
                        writeln!(f, "  {failure}")?;
                    }
                }
                Verdict::Unsupported { reason } => writeln!(f, "\nunsupported {}: {reason}", case.name)?,
                Verdict::Skipped { reason } => writeln!(f, "\nskipped {}: {reason}", case.name)?,
            }
        }
        write!(
            f,
            "\n{} cases: {} passed, {} failed, {} unsupported, {} skipped",
            self.cases.len(),
            self.count("passed"),
            self.count("failed"),
            self.count("unsupported"),
            self.count("skipped")
        )
    }
}

/// RFC 3339 of a time since 1970 (civil calendar by Hinnant's algorithm for days since March of year 0).
fn utc(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_the_civil_calendar() {
        let date = |seconds| utc(Duration::from_secs(seconds));
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(date(1_798_761_600), "2027-01-01T00:00:00Z");
    }

    #[test]
    fn a_report_counts_per_section_and_result() {
        let case = |name: &str, sheet: &[&str], verdict| CaseReport {
            name: name.to_owned(),
            sheet: sheet.iter().map(|row| (*row).to_owned()).collect(),
            verdict,
            variants: BTreeSet::new(),
        };
        let failures = vec!["goes to b, not a".to_owned()];
        let cases = vec![
            case(
                "y/2",
                &["epp-core#5/x", "epp-core#5/y"],
                Verdict::Failed { failures },
            ),
            case("x/1", &["epp-core#5/x", "epp-flow#4.3/1"], Verdict::Passed),
        ];
        let report = Report::new(Implementation::default(), Profile::Any, cases);
        assert_eq!(
            report.sections["epp-core#5"],
            [("failed", 1), ("passed", 1)].into()
        );
        assert_eq!(report.failed()[0].name, "y/2");
        let yaml = serde_yaml::to_string(&report).expect("YAML");
        assert!(yaml.contains("result: failed"), "{yaml}");
        assert!(report.to_string().contains("goes to b, not a"));
        assert!(
            report
                .to_string()
                .ends_with("2 cases: 1 passed, 1 failed, 0 unsupported, 0 skipped")
        );
    }
}
