//! Every file of `examples/`: people copy them.

use std::path::PathBuf;

use crate::support::Documents;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

pub(crate) fn examples() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_validates_and_renders() {
    let examples = examples();
    assert!(examples.len() >= 8, "examples are missing: {}", examples.len());
    for (name, text) in examples {
        let documents = Documents::read(&text);
        assert!(!documents.deployments.is_empty(), "{name} deploys nothing");
        for index in 0..documents.deployments.len() {
            let rendered = documents.render(index);
            assert!(
                rendered
                    .objects
                    .iter()
                    .any(|object| object.kind() == "Deployment"),
                "{name}"
            );
        }
    }
}

#[test]
fn every_example_says_what_it_is_for() {
    for (name, text) in examples() {
        assert!(
            text.starts_with("# "),
            "{name} needs a first line that says what it shows"
        );
    }
}

#[test]
fn the_minimal_example_has_a_spec_of_two_lines() {
    let text = std::fs::read_to_string(directory().join("minimal.yaml")).unwrap();
    let spec: Vec<&str> = text.lines().skip_while(|line| *line != "spec:").skip(1).collect();
    assert_eq!(spec, ["  model:", "    uri: hf://Qwen/Qwen3-32B"]);
}

/// What two sides must agree on is written nowhere twice, because it is written nowhere: the operator derives it.
#[test]
fn no_example_states_a_value_that_something_else_must_equal() {
    let derived = [
        "block-size",
        "blockSizeTokens",
        "PYTHONHASHSEED",
        "--port",
        "port:",
        "SIDE_CHANNEL",
        "kv-transfer-config",
        "kv_connector",
        "data-parallel-",
        "tensor-parallel-size",
        "peakPrefillThroughput",
        "maxPrefixTokensToMatch",
        "modelName",
        "KEEP_ALIVE",
    ];
    for (name, text) in examples() {
        for word in derived {
            assert!(!text.contains(word), "{name} states {word}");
        }
        // a block size is one field, and no engine or picker has another
        assert!(text.matches("blockSize").count() <= 1, "{name}");
    }
}
