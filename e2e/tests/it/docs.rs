//! What the documentation says can be copied: resources validate, links lead somewhere.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use llmd_e2e::process::llmd_bin;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and everything below `docs/`.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let mut directories = vec![root().join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The fenced blocks of one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

#[test]
fn every_resource_in_the_documentation_validates() {
    let mut checked = 0;
    for (path, page) in pages() {
        for block in blocks(&page, "yaml")
            .into_iter()
            .filter(|block| block.contains("llmd.dev/v1alpha1"))
        {
            accepts(&["validate", "-f", "-"], block, &path);
            checked += 1;
        }
    }
    assert!(
        checked >= 2,
        "only {checked} resources were found: is the search broken?"
    );
}

/// Runs `llmd ARGUMENTS` with `input`; panics with what it said when it refuses.
fn accepts(arguments: &[&str], input: &str, page: &Path) {
    let mut child = Command::new(llmd_bin())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {error}\n{input}", page.display());
}

#[test]
fn every_picker_configuration_in_the_documentation_is_taken() {
    let mut checked = 0;
    for (path, page) in pages() {
        for block in blocks(&page, "yaml")
            .into_iter()
            .filter(|block| is_configuration(block))
        {
            let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
            std::fs::write(file.path(), block).unwrap();
            let file = file.path().to_str().unwrap();
            accepts(
                &["epp", "validate", file, "--allow-experimental-plugins"],
                "",
                &path,
            );
            checked += 1;
        }
    }
    assert!(checked >= 1, "none was found: is the search broken?");
}

/// A whole one; a resource may hold one too, which its own check reads.
fn is_configuration(block: &str) -> bool {
    block.lines().any(|line| line == "kind: EndpointPickerConfig")
}

#[test]
fn every_yaml_and_json_block_can_be_read() {
    let mut checked = 0;
    for (path, page) in pages() {
        for block in blocks(&page, "yaml") {
            for document in serde_yaml::Deserializer::from_str(block) {
                let read = <serde_json::Value as serde::Deserialize>::deserialize(document);
                assert!(read.is_ok(), "{}: {read:?}\n{block}", path.display());
            }
            checked += 1;
        }
        for block in blocks(&page, "json") {
            let read = serde_json::from_str::<serde_json::Value>(block);
            assert!(read.is_ok(), "{}: {read:?}\n{block}", path.display());
        }
    }
    assert!(
        checked >= 4,
        "only {checked} blocks were found: is the search broken?"
    );
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut checked = 0;
    for (path, page) in pages() {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            assert!(
                file.exists(),
                "{}: link to {target}, which does not exist",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(
        checked >= 10,
        "only {checked} links were found: is the search broken?"
    );
}
