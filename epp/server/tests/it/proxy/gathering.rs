//! Requests that wait for each other in the built-in proxy.

use std::sync::Arc;
use std::time::Duration;

use llmd_epp::datalayer::{DataLayer, Options};
use llmd_epp_api::SlotTable;
use llmd_epp_core::Scheduler;
use llmd_epp_core::config::{BuildEnv, EndpointPickerConfig};
use prometheus::Registry;

use super::rig::{scraping, serve, text};
use crate::engine::{Engine, Script};

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: burst-prefix-cache-producer, parameters: {windowDurationMs: 1000}}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: burst-prefix-cache-producer}}
- {type: active-request-scorer}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: active-request-scorer}
";

#[tokio::test]
async fn a_burst_with_one_prompt_goes_to_one_engine() {
    let engines = [
        Engine::start(Script::Json).await,
        Engine::start(Script::Json).await,
    ];
    let registry = Registry::new();
    let options = Options {
        sources: scraping(),
        refresh_interval: Duration::from_millis(50),
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    let layer = DataLayer::start(options, &registry).expect("registers");
    let named = engines.iter().enumerate();
    let specs = named.map(|(index, engine)| engine.spec(&format!("engine-{index}")));
    layer.set_endpoints(specs.collect());
    let decoded = EndpointPickerConfig::decode(CONFIG).expect("decodes");
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    let scheduler = Scheduler::build(&decoded.config, env).expect("builds");
    let rig = serve(layer, Arc::new(scheduler), &registry, None).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let answers = futures_util::future::join_all((0..6).map(|_| rig.chat(body))).await;
    for answer in answers {
        assert_eq!(answer.status(), 200);
        assert!(text(answer).await.contains("\"usage\""));
    }
    let mut received = engines.each_ref().map(|engine| engine.received().len());
    received.sort_unstable();
    assert_eq!(received, [0, 6]);
}
