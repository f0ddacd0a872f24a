//! Sources beside the engines' own metrics, as a configuration names them.

use std::net::Ipv4Addr;
use std::time::Instant;

use llmd_epp::datalayer::{Source, sources};
use llmd_epp_api::{EndpointSpec, Reach};
use llmd_epp_core::config::{BuildEnv, EndpointPickerConfig, assemble};

use super::start;
use crate::metrics_server::{Manner, MetricsServer, spec, vllm_page};
use crate::wait::until;

/// The sources of a configuration with experimental plugins.
fn configured(plugins_and_data_layer: &str) -> Vec<Source> {
    let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{plugins_and_data_layer}");
    let config = EndpointPickerConfig::decode(&text).expect("decodes").config;
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    let assembly = assemble(&config, env).expect("assembles");
    sources(&assembly.data_layer).expect("no TLS files")
}

#[tokio::test]
async fn models_and_gpus_are_read_beside_the_metrics() {
    let engine = MetricsServer::start(Manner::Proper, vllm_page(4, 0, 0.0)).await;
    let models = MetricsServer::start(
        Manner::Proper,
        r#"{"object":"list","data":[{"id":"base"},{"id":"lora","parent":"base"}]}"#.to_owned(),
    )
    .await;
    let node = "DCGM_FI_DEV_GPU_UTIL{pod=\"a\"} 40\nDCGM_FI_DEV_GPU_UTIL{pod=\"b\"} 90\n";
    let exporter = MetricsServer::start(Manner::Proper, node.to_owned()).await;
    let polled = configured(&format!(
        "plugins:
- {{type: queue-scorer}}
- {{type: models-data-source, parameters: {{interval: 100ms}}}}
- {{type: models-data-extractor}}
- {{type: dcgm-data-source, parameters: {{port: {}, useNodeAddress: true}}}}
- {{type: dcgm-extractor}}
dataLayer:
  sources:
  - {{pluginRef: models-data-source, extractors: [{{pluginRef: models-data-extractor}}]}}
  - {{pluginRef: dcgm-data-source, extractors: [{{pluginRef: dcgm-extractor}}]}}
",
        exporter.address.port()
    ));
    assert_eq!(polled.len(), 3, "the default source stays");
    let rig = start(polled);
    // One server answers the paths of the engine and of its models: two endpoints show one each.
    let on_node = |spec: EndpointSpec| EndpointSpec {
        address: Ipv4Addr::LOCALHOST.into(),
        reach: Reach {
            node: Some(Ipv4Addr::LOCALHOST.into()),
            ..Reach::default()
        },
        ..spec
    };
    rig.layer.set_endpoints(vec![
        on_node(engine.spec("a")),
        on_node(models.spec("b")),
        spec("c", engine.address.port()),
    ]);
    let status = until("both", || {
        let status = rig.layer.status(Instant::now());
        let (a, b) = (&status[0], &status[1]);
        (a.waiting == 4 && !a.attributes.is_empty() && !b.attributes.is_empty() && !b.models.is_empty())
            .then_some(status)
    })
    .await;
    let models: Vec<(&str, &str)> = status[1]
        .models
        .iter()
        .map(|model| (&*model.id, &*model.parent))
        .collect();
    assert_eq!(models, [("base", ""), ("lora", "base")]);
    let of = |position: usize| status[position].attributes.get("GPUUtilization").copied();
    assert_eq!(
        (of(0), of(1), of(2)),
        (Some(0.4), Some(0.9), None),
        "c says no node, so nobody is asked"
    );
}

#[tokio::test]
async fn a_cluster_is_asked_where_its_labels_say() {
    let page = "# TYPE llm_d_epp_average_queue_size gauge\nllm_d_epp_average_queue_size{name=\"p\"} 7\n\
                # TYPE llm_d_epp_average_kv_cache_utilization gauge\nllm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.5\n";
    let picker = MetricsServer::start(Manner::Proper, page.to_owned()).await;
    let rig = start(configured(
        "plugins:
- {type: queue-scorer}
- {type: multicluster-metrics-data-source, parameters: {scheme: http}}
- {type: multicluster-metrics-extractor}
dataLayer:
  injectDefaults: false
  sources:
  - {pluginRef: multicluster-metrics-data-source, extractors: [{pluginRef: multicluster-metrics-extractor}]}
",
    ));
    // Nobody listens at the endpoint itself.
    let mut east = spec("east", 9);
    east.reach.metrics = Some(picker.address);
    rig.layer.set_endpoints(vec![east]);
    let attributes = until("the averages", || {
        rig.layer
            .status(Instant::now())
            .pop()
            .map(|status| status.attributes)
            .filter(|read| read.len() == 2)
    })
    .await;
    let read: Vec<(&str, f64)> = attributes.iter().map(|(key, value)| (&**key, *value)).collect();
    assert_eq!(
        read,
        [
            ("llm-d.ai/multicluster-kv-cache-utilization", 0.5),
            ("llm-d.ai/multicluster-queue-size", 7.0)
        ]
    );
}
