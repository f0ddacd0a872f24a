//! What the installation decides reaches every pod that it concerns, and no other.

use llmd_render::{CaBundle, Egress, RenderOptions, Rendered, render};
use serde_json::{Value, json};

use crate::support::{Documents, document, lines, object};

fn rendered(spec: &str, options: &RenderOptions) -> Rendered {
    let validated = Documents::read(&document(spec)).validate(0);
    let validated = validated.unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    render(&validated.deployment, options)
}

fn pod(rendered: &Rendered, name: &str) -> Value {
    object(rendered, "Deployment", name)["spec"]["template"]["spec"].clone()
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let all = pod["containers"][0]["env"].as_array()?;
    all.iter().find(|one| one["name"] == name)?["value"].as_str()
}

fn outside() -> RenderOptions {
    RenderOptions {
        mirror: Some("mirror.example".to_owned()),
        egress: Egress {
            http_proxy: None,
            https_proxy: Some("http://proxy.example:3128".to_owned()),
            no_proxy: Some("10.0.0.0/8".to_owned()),
            ca_bundle: Some(CaBundle {
                config_map: "trust".to_owned(),
                key: "root.pem".to_owned(),
            }),
        },
        ..RenderOptions::default()
    }
}

#[test]
fn engines_that_load_models_get_proxies_and_authorities() {
    let engine = pod(&rendered("{model: {uri: 'hf://a/b'}}", &outside()), "x-decode");
    for name in ["HTTPS_PROXY", "https_proxy"] {
        assert_eq!(variable(&engine, name), Some("http://proxy.example:3128"));
    }
    let exceptions = variable(&engine, "NO_PROXY").unwrap();
    assert!(
        exceptions.contains(".svc") && exceptions.ends_with(",10.0.0.0/8"),
        "{exceptions}"
    );
    assert_eq!(variable(&engine, "HTTP_PROXY"), None);

    let file = variable(&engine, "SSL_CERT_FILE").unwrap();
    let mounts = engine["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "ca-bundle").unwrap();
    assert!(file.starts_with(mount["mountPath"].as_str().unwrap()), "{mount}");
    assert_eq!(mount["readOnly"], true);
    let volumes = engine["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .find(|volume| volume["name"] == "ca-bundle")
        .unwrap();
    let key = &volume["configMap"]["items"][0];
    assert_eq!(
        (&volume["configMap"]["name"], &key["key"]),
        (&json!("trust"), &json!("root.pem"))
    );
    assert!(file.ends_with(key["path"].as_str().unwrap()), "{file}");
}

#[test]
fn an_authors_variable_wins_over_the_installations() {
    let spec = "{model: {uri: 'hf://a/b'}, engine: {env: [{name: HTTPS_PROXY, value: 'http://own:1'}]}}";
    let engine = pod(&rendered(spec, &outside()), "x-decode");
    assert_eq!(variable(&engine, "HTTPS_PROXY"), Some("http://own:1"));
}

#[test]
fn routers_and_simulators_speak_to_the_cluster_only() {
    let whole = rendered("{path: simulated, model: {name: m}}", &outside());
    for name in ["x-epp", "x-decode"] {
        let pod = pod(&whole, name).to_string();
        assert!(
            !pod.contains("proxy.example") && !pod.contains("ca-bundle"),
            "{pod}"
        );
    }
}

#[test]
fn default_images_of_others_come_from_the_mirror_and_named_ones_do_not() {
    let image = |spec: &str, name: &str, container: &str| {
        pod(&rendered(spec, &outside()), name)
            .pointer(container)
            .and_then(Value::as_str)
            .unwrap()
            .to_owned()
    };
    let plain = "{model: {uri: 'hf://a/b'}}";
    let engine = image(plain, "x-decode", "/containers/0/image");
    assert!(engine.starts_with("mirror.example/vllm/vllm-openai:"), "{engine}");
    let envoy = image(plain, "x-epp", "/initContainers/0/image");
    assert!(envoy.starts_with("mirror.example/envoyproxy/envoy:"), "{envoy}");
    let named = "{model: {uri: 'hf://a/b'}, engine: {image: 'own.example/e:1'}, router: {proxy: {image: 'own.example/p:1'}}}";
    assert_eq!(image(named, "x-decode", "/containers/0/image"), "own.example/e:1");
    assert_eq!(
        image(named, "x-epp", "/initContainers/0/image"),
        "own.example/p:1"
    );
}
