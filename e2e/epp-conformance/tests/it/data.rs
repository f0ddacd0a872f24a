//! The files of cases are those of the folder, and each case can run as written.

use std::collections::BTreeSet;
use std::path::Path;

use llmd_epp_conformance::suite::{FILES, cases};

#[test]
fn all_files_of_the_folder_are_in_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(built_in, on_disk, "suite.rs lists other files than cases/ has");
}

#[test]
fn every_case_can_be_read_and_names_are_unique() {
    let cases = cases().expect("readable cases");
    let names: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 150, "{} cases", cases.len());
}

#[test]
fn variants_say_why_and_the_documentation_says_so_too() {
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/epp.md");
    let documentation = std::fs::read_to_string(documentation).expect("docs/epp.md");
    for (name, text) in FILES {
        let yaml: serde_yaml::Value = serde_yaml::from_str(text).expect("YAML");
        check(&yaml, name, &documentation);
    }
}

fn check(value: &serde_yaml::Value, file: &str, documentation: &str) {
    if let Some(variants) = value.get("variants") {
        let reason = variants
            .get("reason")
            .and_then(serde_yaml::Value::as_str)
            .unwrap_or_default();
        assert!(
            !reason.is_empty(),
            "{file}: a variant without a reason: {variants:?}"
        );
        assert!(
            documentation.contains(reason),
            "docs/epp.md does not say: {reason}"
        );
    }
    match value {
        serde_yaml::Value::Mapping(map) => {
            for inner in map.values() {
                check(inner, file, documentation);
            }
        }
        serde_yaml::Value::Sequence(items) => {
            for inner in items {
                check(inner, file, documentation);
            }
        }
        _ => {}
    }
}
