//! The bootstrap that a deployment renders to, in the real Envoy.

use std::net::SocketAddr;

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::{Envoy, validate};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::http;
use llmd_e2e::poll::free_port;
use llmd_render::{Document, Inputs, Object, RenderOptions, decode, render};
use serde_json::Value;

use super::{CHAT, chat, short_answer};

/// The rendered `envoy.yaml` of a minimal deployment.
fn bootstrap(router: &str) -> String {
    let text = format!(
        "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {{name: demo}}\n\
         spec: {{path: simulated, model: {{name: m}}, router: {router}}}\n"
    );
    let documents = decode(&text).unwrap();
    let Document::Deployment(deployment) = &documents[0] else {
        panic!("{documents:?}")
    };
    let inputs = Inputs {
        deployment,
        paths: &[],
        accelerators: &[],
        namespace: "default",
        kept: None,
    };
    let validated = llmd_render::validate(inputs).expect("a right deployment");
    let rendered = render(&validated.deployment, &RenderOptions::default());
    let config = rendered.objects.iter().find_map(|object| match object {
        Object::ConfigMap(map) => map.data.as_ref()?.get("envoy.yaml").cloned(),
        _ => None,
    });
    config.expect("a bootstrap")
}

#[test]
fn every_rendered_bootstrap_is_accepted() {
    for router in [
        "{proxy: {failOpen: true}}",
        "{proxy: {failOpen: false}}",
        "{epp: {flags: {secure-serving: 'false'}}}",
    ] {
        validate(&bootstrap(router));
    }
}

/// Moves one port of the bootstrap to where this test can have it.
fn move_port(value: &mut Value, from: u16, to: u16) {
    match value {
        Value::Object(members) => {
            if members.get("port_value") == Some(&from.into()) {
                members.insert("port_value".to_owned(), to.into());
            }
            members
                .values_mut()
                .for_each(|member| move_port(member, from, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_port(item, from, to)),
        _ => {}
    }
}

/// The rendered proxy before a picker, and where it shows its statistics.
pub(super) async fn start(router: &str, epp: &Epp) -> (Envoy, SocketAddr) {
    let mut config: Value = serde_yaml::from_str(&bootstrap(router)).unwrap();
    let [listener, stats, admin] = [(); 3].map(|()| free_port());
    for (from, to) in [
        (8081, listener),
        (19001, stats),
        (19000, admin),
        (9002, epp.ext_proc.port()),
    ] {
        move_port(&mut config, from, to);
    }
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let envoy = Envoy::start_with(&config, loopback(listener), loopback(admin), 2).await;
    (envoy, loopback(stats))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rendered_proxy_routes_over_tls_and_strips_what_clients_may_not_say() {
    let (chosen, other) = (
        Echo::start(short_answer()).await,
        Echo::start(short_answer()).await,
    );
    let options = epp::Options {
        secure: true,
        ..epp::Options::default()
    };
    let epp = Epp::start(&[chosen.address], &options).await;
    let (envoy, stats) = start("{proxy: {failOpen: false}}", &epp).await;
    let forged = other.address.to_string();
    let headers = [
        ("x-gateway-destination-endpoint", forged.as_str()),
        ("x-prefiller-host-port", forged.as_str()),
        ("x-kv-cache-source-host-port", forged.as_str()),
        ("x-session-id", "kept"),
    ];
    let answer = http::post(envoy.address, CHAT, chat("hi"), &headers)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(other.count(), 0, "a client chose the target");
    let recorded = chosen.take().expect("the picker's choice was asked");
    assert!(
        !recorded.headers.contains_key("x-prefiller-host-port"),
        "{:?}",
        recorded.headers
    );
    assert!(
        !recorded.headers.contains_key("x-kv-cache-source-host-port"),
        "{:?}",
        recorded.headers
    );
    assert_eq!(recorded.headers["x-session-id"], "kept");
    let ready = http::get(stats, "/ready").await.unwrap();
    assert_eq!(ready.status, 200, "{}", ready.text());
    let closed = http::get(stats, "/quitquitquit").await.unwrap();
    assert_eq!(
        closed.status, 404,
        "the admin interface is reachable from outside"
    );
}
