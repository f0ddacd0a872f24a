//! A bill of materials in `CycloneDX` 1.5: every crate that is linked into the program.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cargo::{cargo, output};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for our own crates.
    source: Option<String>,
}

/// The document; equal trees give equal bytes.
pub(super) fn cyclonedx(version: &str) -> anyhow::Result<String> {
    let metadata = output(cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    // not all of the workspace: what tests and tools use is not shipped
    let linked = output(cargo(&[
        "tree",
        "--locked",
        "--package=llmd",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
    ]))?;
    Ok(document(&metadata, &linked, version))
}

fn document(metadata: &Metadata, linked: &str, version: &str) -> String {
    let mut linked: Vec<(&str, &str)> = linked.lines().filter_map(name_and_version).collect();
    linked.sort_unstable();
    linked.dedup();
    let components: Vec<Value> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .filter(|package| {
            linked
                .binary_search(&(package.name.as_str(), package.version.as_str()))
                .is_ok()
        })
        .map(component)
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "llmd", "version": version}},
        "components": components,
    });
    format!("{document:#}\n")
}

/// `serde v1.0.0 (proc-macro)` as its first two words.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?.strip_prefix('v')?))
}

fn component(package: &Package) -> Value {
    let url = format!("pkg:cargo/{}@{}", package.name, package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
    });
    if let Some(license) = &package.license {
        // the old way of crates to say "or"
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let package = |name: &str, source: Option<&str>| Package {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            license: Some("MIT/Apache-2.0".to_owned()),
            source: source.map(str::to_owned),
        };
        let metadata = Metadata {
            packages: vec![
                package("llmd", None),
                package("linked", Some("registry")),
                package("tool", Some("registry")),
            ],
        };
        let text = document(
            &metadata,
            "llmd v1.2.3 (/x)\nlinked v1.2.3\nlinked v1.2.3 (*)\n",
            "1.2.3",
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        let components = value["components"].as_array().unwrap();
        assert_eq!(components.len(), 1);
        assert_eq!(components[0]["purl"], "pkg:cargo/linked@1.2.3");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
