//! Pod templates of engines as released versions rendered them: a template that changes restarts every model on the
//! cluster, at the next upgrade of the operator.
//!
//! `releases/VERSION.json` holds, for each example of a release, the documents and a digest of every engine's template.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmd_render::{Object, RenderOptions, builtin_paths};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::examples;
use crate::support::{Documents, document};

/// Set by `cargo xtask generate`, when this version has no file yet.
const RECORD: &str = "LLMD_RECORD_RELEASE";

/// What a release rendered, by the name of the example.
type Release = BTreeMap<String, Recorded>;

#[derive(Deserialize, Serialize)]
struct Recorded {
    /// As it was then: the example may change later, what people deployed does not.
    documents: String,
    /// Digest of each engine's pod template.
    templates: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("releases")
}

fn current() -> String {
    format!("v{}", env!("CARGO_PKG_VERSION"))
}

/// Digests of the pod templates of engines, as a cluster has them that was installed with `release`.
fn templates(text: &str, release: &str) -> BTreeMap<String, String> {
    let documents = Documents::read(text);
    let options = RenderOptions {
        engine_image_tag: Some(release.to_owned()),
        ..RenderOptions::default()
    };
    let mut found = BTreeMap::new();
    for index in 0..documents.deployments.len() {
        for object in documents.render_with(index, &options).objects {
            let Object::Deployment(deployment) = object else {
                continue;
            };
            let template = serde_json::to_value(deployment.spec.unwrap().template).unwrap();
            if template["metadata"]["labels"]["app.kubernetes.io/component"] == "modelserver" {
                let digest = xxhash_rust::xxh64::xxh64(canonical(&template).as_bytes(), 0);
                found.insert(deployment.metadata.name.unwrap(), format!("{digest:016x}"));
            }
        }
    }
    found
}

/// JSON with sorted keys, whatever order the types have them in.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, String> = members
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// Every example, and every version of every path, with its version pinned as the operator does.
fn inputs() -> BTreeMap<String, String> {
    let mut inputs: BTreeMap<String, String> = examples::examples()
        .into_iter()
        .map(|(name, text)| (name, pinned(&text)))
        .collect();
    for path in builtin_paths() {
        let (name, version) = (path.metadata.name.as_deref().unwrap(), &path.spec.version);
        let spec = format!("{{path: {name}, pathVersion: {version}, model: {{uri: 'hf://a/b', name: a/b}}}}");
        inputs.insert(format!("path {name} {version}"), document(&spec));
    }
    inputs
}

fn pinned(text: &str) -> String {
    let documents = Documents::read(text);
    let versions: Vec<String> = (0..documents.deployments.len())
        .map(|index| documents.validate(index).unwrap().deployment.path.version)
        .collect();
    let mut versions = versions.into_iter();
    serde_yaml::Deserializer::from_str(text)
        .filter_map(|one| {
            let mut one = Value::deserialize(one).unwrap();
            if one["kind"] == "LLMDeployment" {
                one["spec"]["pathVersion"] = versions.next()?.into();
            }
            (!one.is_null()).then(|| format!("---\n{}", serde_yaml::to_string(&one).unwrap()))
        })
        .collect()
}

#[test]
fn no_engine_of_a_released_version_changes() {
    if std::env::var_os(RECORD).is_some() {
        record();
    }
    let mut releases = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let release = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let recorded: Release = serde_json::from_str(&text).unwrap();
        for (example, then) in recorded {
            let now = templates(&then.documents, &release);
            for (engine, digest) in &then.templates {
                assert_eq!(
                    now.get(engine),
                    Some(digest),
                    "the pod template of {engine} of {example} is not as {release} rendered it: an upgrade would \
                     restart every such engine. Give the change to a new version of the path (a new file in paths/), \
                     or render it only where the resource asks for it. Only while {release} is not released: remove \
                     operator/render/releases/{release}.json and run `cargo xtask generate`"
                );
            }
        }
        releases.push(release);
    }
    let current = current();
    assert!(
        releases.contains(&current),
        "releases/{current}.json is missing: run `cargo xtask generate`"
    );
}

/// Writes the file of this version, never over one that is there.
fn record() {
    let release = current();
    let recorded: Release = inputs()
        .into_iter()
        .map(|(name, documents)| {
            let templates = templates(&documents, &release);
            (name, Recorded { documents, templates })
        })
        .collect();
    let text = serde_json::to_string_pretty(&recorded).unwrap() + "\n";
    std::fs::create_dir_all(folder()).unwrap();
    let path = folder().join(format!("{release}.json"));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

#[test]
fn a_digest_is_of_the_engine_and_not_of_the_router() {
    let with = |spec: &str| templates(&document(spec), "v0.0.1");
    let base = with("{path: simulated, model: {name: a}}");
    assert_eq!(base.keys().collect::<Vec<_>>(), ["x-decode"]);
    let router = with("{path: simulated, model: {name: a}, router: {proxy: {type: Builtin}}}");
    assert_eq!(base, router);
    let engine = with("{path: simulated, model: {name: a}, engine: {image: other}}");
    assert_ne!(base, engine);
}

#[test]
fn a_newer_operator_renders_the_same_engine_but_its_own_router() {
    let documents = Documents::read(&document("{path: simulated, model: {name: a}}"));
    let images = |image_tag: &str, engine_image_tag: Option<&str>| -> Vec<String> {
        let options = RenderOptions {
            image_tag: image_tag.to_owned(),
            engine_image_tag: engine_image_tag.map(str::to_owned),
            ..RenderOptions::default()
        };
        let rendered = documents.render_with(0, &options);
        ["x-epp", "x-decode"]
            .map(|name| {
                let found = crate::support::object(&rendered, "Deployment", name);
                let containers = &found["spec"]["template"]["spec"]["containers"];
                let ours = containers.as_array().unwrap().iter();
                let image = |container: &Value| container["image"].as_str().unwrap_or_default().to_owned();
                ours.map(image).find(|image| image.contains("/llmd")).unwrap()
            })
            .map(|image| image.rsplit(':').next().unwrap().to_owned())
            .to_vec()
    };
    assert_eq!(images("v1", None), ["v1", "v1"]);
    assert_eq!(images("v2", Some("v1")), ["v2", "v1"]);
}
