//! `GET /v1/models` of the whole role, whose engines have different adapters, and die.

use http::Request;
use http_body_util::Full;

use crate::metrics_server::{Manner, MetricsServer};
use crate::role::{PORTS, Role, proxy_port, until_async};

use super::rig::{send_to, text};

const CONFIG: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- {type: models-data-source, parameters: {interval: 50ms}}
- type: models-data-extractor
dataLayer:
  sources:
  - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
";

async fn listing(adapter: &str) -> MetricsServer {
    let page = format!(
        r#"{{"object":"list","data":[{{"id":"base","owned_by":"vllm"}},{{"id":"{adapter}","parent":"base"}}]}}"#
    );
    MetricsServer::start(Manner::Proper, page).await
}

#[tokio::test]
async fn adapters_of_all_living_engines_are_listed() {
    let (one, mut two, three) = tokio::join!(listing("one"), listing("two"), listing("three"));
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, CONFIG).expect("written");
    let role = Role::start(format!(
        "{PORTS} --config-file={} --endpoints={},{},{} --proxy-port={} --proxy-bind-address=127.0.0.1 \
         --drain-timeout=0s",
        config.display(),
        one.address,
        two.address,
        three.address,
        proxy_port()
    ))
    .await;
    let proxy = role.addresses.proxy.expect("a proxy");
    let lists = async |wanted: &[&str]| {
        until_async(async || {
            let request = Request::get("/v1/models").header("host", "x");
            let request = request.body(Full::default()).expect("a request");
            let page: serde_json::Value =
                serde_json::from_str(&text(send_to(proxy, request).await).await).expect("JSON");
            let models = page["data"].as_array().expect("a list");
            let ids: Vec<&str> = models.iter().filter_map(|model| model["id"].as_str()).collect();
            (ids == wanted).then_some(())
        })
        .await;
    };
    lists(&["base", "one", "three", "two"]).await;
    two.kill().await;
    lists(&["base", "one", "three"]).await;
    two.restart().await;
    lists(&["base", "one", "three", "two"]).await;
    role.running.abort();
}
