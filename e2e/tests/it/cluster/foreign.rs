//! The foreign definitions in the binary are those of their modules, but for what their first line says.

use std::collections::BTreeMap;

use llmd_crds::foreign;
use llmd_e2e_cluster::artifacts;
use serde::Deserialize;
use serde_json::Value;

/// Without texts for people and without what tools leave behind.
fn bare(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.retain(|name, member| !(name == "description" && member.is_string()));
            members.remove("controller-gen.kubebuilder.io/version");
            for (_, member) in members.iter_mut() {
                *member = bare(member.take());
            }
            members.retain(|_, member| !member.is_null());
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = bare(item.take())),
        _ => {}
    }
    value
}

/// Definitions of a text by name.
fn definitions(text: &str) -> BTreeMap<String, Value> {
    let documents = serde_yaml::Deserializer::from_str(text).map(|one| Value::deserialize(one).unwrap());
    let named = documents
        .filter(|one| one["kind"] == "CustomResourceDefinition")
        .map(|one| {
            let mut one = bare(one);
            one.as_object_mut().unwrap().remove("status");
            if one["metadata"]["annotations"]
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
            {
                one["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            (one["metadata"]["name"].as_str().unwrap().to_owned(), one)
        });
    named.collect()
}

#[test]
fn they_are_what_their_modules_have() {
    for (name, embedded) in [("gaie", foreign::GAIE), ("lws", foreign::LWS)] {
        let mut upstream = BTreeMap::new();
        for file in std::fs::read_dir(artifacts::foreign_definitions(name).unwrap()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                upstream.extend(definitions(&std::fs::read_to_string(path).unwrap()));
            }
        }
        let ours = definitions(embedded);
        assert!(!ours.is_empty(), "{name} has no definition");
        for (definition, ours) in ours {
            let theirs = upstream
                .get(&definition)
                .unwrap_or_else(|| panic!("{definition} is not of {name}"));
            assert!(ours == *theirs, "{definition} differs from its module's");
        }
    }
}
