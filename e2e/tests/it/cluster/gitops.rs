//! What Argo CD and Flux read: the health script in the Lua that Argo CD runs, and examples that refer to what exists.

mod live;

use std::path::{Path, PathBuf};
use std::process::Command;

use llmd_e2e_cluster::artifacts;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(path: &Path) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(&read(path))
        .map(|one| <Value as serde::Deserialize>::deserialize(one).unwrap())
        .collect()
}

/// A JSON value as a Lua expression.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, value)| format!("[{}]={}", lua(&Value::from(key.as_str())), lua(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// Status and message that the script gives for an object.
fn health(object: &Value) -> (String, String) {
    let script = read(&Path::new(ROOT).join("deploy/argocd/health.lua"));
    let program = format!(
        "local obj = {}\nlocal function check(obj)\n{script}\nend\nlocal h = check(obj)\nprint(h.status)\nprint(h.message)\n",
        lua(object)
    );
    let file = tempfile::NamedTempFile::with_suffix(".lua").unwrap();
    std::fs::write(file.path(), program).unwrap();
    let done = Command::new(artifacts::program("lua").unwrap())
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let mut lines = said.lines().map(str::to_owned);
    let status = lines
        .next()
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&done.stderr)));
    (status, lines.next().unwrap_or_default())
}

#[test]
fn argo_sees_the_health_of_every_state() {
    let folder = Path::new(ROOT).join("deploy/argocd");
    let tests = documents(&folder.join("health_test.yaml")).remove(0);
    let mut seen = Vec::new();
    for test in tests["tests"].as_array().unwrap() {
        let object = documents(&folder.join(test["inputPath"].as_str().unwrap())).remove(0);
        let (status, message) = health(&object);
        assert_eq!(status, test["healthStatus"]["status"], "{}", test["inputPath"]);
        assert_eq!(message, test["healthStatus"]["message"], "{}", test["inputPath"]);
        seen.push(status);
    }
    for state in ["Progressing", "Healthy", "Degraded", "Suspended"] {
        assert!(seen.iter().any(|one| one == state), "no object is {state}");
    }
    let recorded = std::fs::read_dir(folder.join("testdata")).unwrap().count();
    assert_eq!(recorded, seen.len(), "an object has no test");
}

#[test]
fn recorded_objects_decode() {
    for entry in std::fs::read_dir(Path::new(ROOT).join("deploy/argocd/testdata")).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let object: Result<llmd_crds::LLMDeployment, _> = serde_yaml::from_str(&read(&path));
        assert!(object.is_ok(), "{}: {}", path.display(), object.unwrap_err());
    }
}

#[test]
fn examples_refer_to_what_exists() {
    let root = Path::new(ROOT);
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let applications = documents(&root.join("deploy/argocd/application.yaml"));
    assert_eq!(applications.len(), 2);
    for application in applications {
        let source = &application["spec"]["source"];
        let folder = root.join(source["path"].as_str().unwrap());
        assert!(folder.is_dir(), "{}", folder.display());
        assert_eq!(source["targetRevision"], version);
        if let Some(file) = source["directory"]["include"].as_str() {
            assert!(folder.join(file).is_file(), "{file}");
        }
    }
    let flux = documents(&root.join("deploy/flux/llmd.yaml"));
    let of = |kind: &str| flux.iter().find(|one| one["kind"] == kind).unwrap();
    assert_eq!(of("GitRepository")["spec"]["ref"]["tag"], version);
    let release = &of("HelmRelease")["spec"];
    let chart = root.join(release["chart"]["spec"]["chart"].as_str().unwrap());
    assert!(chart.join("Chart.yaml").is_file());
    let values: Value = serde_yaml::from_str(&read(&chart.join("values.yaml"))).unwrap();
    for name in release["values"].as_object().unwrap().keys() {
        assert!(values.get(name).is_some(), "the chart has no value {name}");
    }
    let source = &of("Kustomization")["spec"]["sourceRef"];
    assert!(
        flux.iter()
            .any(|one| one["kind"] == source["kind"] && one["metadata"]["name"] == source["name"])
    );
}
