//! Sources that tell of changes.

use super::super::*;
use super::{HEAD, sources};

fn built(body: &str) -> Result<Assembly, ConfigError> {
    let decoded = EndpointPickerConfig::decode(&format!("{HEAD}{body}"))?;
    let env = BuildEnv {
        allow_experimental: true,
        ..BuildEnv::detached()
    };
    assemble(&decoded.config, env)
}

#[track_caller]
fn refused(body: &str, expected: &str) {
    let error = built(body).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(expected), "'{error}' does not say '{expected}'");
}

#[test]
fn sources_of_changes_are_checked_and_nothing_is_polled_for_them() {
    let with = |sources: &str| {
        format!(
            "plugins: [{{type: queue-scorer}}, {{type: endpoint-notification-source}}, {{type: topology-extractor}}, \
             {{type: core-metrics-extractor}}, {{type: models-data-source}}, {{type: k8s-notification-source, name: pods, parameters: {{version: v1, kind: Pod}}}}]\n\
             dataLayer: {{sources: [{sources}]}}\n"
        )
    };
    let topology = "{pluginRef: endpoint-notification-source, extractors: [{pluginRef: topology-extractor}]}";
    let assembly = built(&with(topology)).expect("assembles");
    assert_eq!(
        sources(&assembly),
        [(
            "metrics-data-source".to_owned(),
            vec!["core-metrics-extractor".to_owned()]
        )]
    );
    let told = built(&with("{pluginRef: pods}")).expect("assembles").warnings;
    assert!(
        told.iter().any(|line| line.contains("Pod is not watched")),
        "{told:?}"
    );
    refused(
        &with("{pluginRef: pods}, {pluginRef: pods}"),
        "dataLayer.sources[1]",
    );
    for (source, reader) in [
        ("pods", "topology-extractor"),
        ("endpoint-notification-source", "core-metrics-extractor"),
        ("models-data-source", "core-metrics-extractor"),
    ] {
        let wrong = format!("{{pluginRef: {source}, extractors: [{{pluginRef: {reader}}}]}}");
        refused(&with(&wrong), "dataLayer.sources[0].extractors[0].pluginRef");
    }
}
