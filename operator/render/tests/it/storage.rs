//! A claim that keeps downloads is mounted where the engine's hub client looks.

use serde_json::{Value, json};

use crate::support::{object, rendered};

fn pod(storage: &str) -> Value {
    let spec = format!("{{model: {{uri: 'hf://a/b', storage: {storage}}}, pools: [{{name: decode}}]}}");
    object(&rendered(&spec), "Deployment", "x-decode")["spec"]["template"]["spec"].clone()
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let list = list.as_array().unwrap();
    list.iter().find(|item| item["name"] == name)
}

#[test]
fn downloads_go_to_the_claim() {
    let pod = pod("{claimName: weights}");
    let engine = &pod["containers"][0];
    let volume = named(&pod["volumes"], "model").unwrap();
    assert_eq!(volume["persistentVolumeClaim"], json!({"claimName": "weights"}));
    let mount = named(&engine["volumeMounts"], "model").unwrap();
    assert!(mount["readOnly"].is_null(), "the engine writes there");
    let cache = named(&engine["env"], "HF_HUB_CACHE").unwrap();
    assert_eq!(cache["value"], mount["mountPath"]);
    assert_eq!(named(&engine["env"], "HF_HUB_OFFLINE"), None);
}

#[test]
fn a_claim_that_is_only_read_means_no_hub() {
    let pod = pod("{claimName: weights, readOnly: true}");
    let engine = &pod["containers"][0];
    let volume = named(&pod["volumes"], "model").unwrap();
    assert_eq!(volume["persistentVolumeClaim"]["readOnly"], true);
    assert_eq!(named(&engine["volumeMounts"], "model").unwrap()["readOnly"], true);
    assert_eq!(named(&engine["env"], "HF_HUB_OFFLINE").unwrap()["value"], "1");
}
