//! Decoding, defaults and every refusal.

mod notifications;

use proptest::prelude::*;

use super::*;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn assembled(body: &str) -> Result<Assembly, ConfigError> {
    let decoded = EndpointPickerConfig::decode(&format!("{HEAD}{body}"))?;
    assemble(&decoded.config, BuildEnv::detached())
}

fn warnings(body: &str) -> Vec<String> {
    validate(&format!("{HEAD}{body}")).unwrap()
}

#[track_caller]
fn refused(body: &str, expected: &str) {
    let error = assembled(body).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(expected), "'{error}' does not say '{expected}'");
}

fn sources(assembly: &Assembly) -> Vec<(String, Vec<String>)> {
    let plans = assembly.data_layer.sources.iter();
    plans
        .map(|plan| {
            let extractors = plan.extractors.iter().map(|(name, _)| name.name.to_string());
            (plan.name.name.to_string(), extractors.collect())
        })
        .collect()
}

#[test]
fn upstreams_default_needs_nothing_else() {
    let assembly = assemble(&EndpointPickerConfig::upstream_default(), BuildEnv::detached()).unwrap();
    assert_eq!(assembly.warnings, [] as [String; 0]);
    assert_eq!(
        sources(&assembly),
        [(
            "metrics-data-source".into(),
            vec!["core-metrics-extractor".into()]
        )]
    );
    assert!(assembly.data_layer.discovery.is_none());
    let parsers: Vec<&str> = assembly
        .parsers
        .iter()
        .map(|parser| parser.name.plugin_type)
        .collect();
    assert_eq!(
        parsers,
        [
            "openai-parser",
            "anthropic-parser",
            "vllmhttp-parser",
            "passthrough-parser"
        ]
    );
}

#[test]
fn json_and_both_groups_decode() {
    let json = r#"{"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": null,
        "schedulingProfiles": [{"name": "a", "plugins": null}]}"#;
    let decoded = EndpointPickerConfig::decode(json).unwrap();
    assert_eq!(decoded.config.scheduling_profiles[0].name, "a");
    let old = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n";
    let decoded = EndpointPickerConfig::decode(old).unwrap();
    assert!(
        decoded.warnings[0].contains("is deprecated; use llm-d.ai/v1alpha1"),
        "{:?}",
        decoded.warnings
    );
    for other in [
        "apiVersion: v1\nkind: EndpointPickerConfig",
        "kind: EndpointPickerConfig",
        "apiVersion: llm-d.ai/v1alpha1\nkind: Pod",
    ] {
        let error = EndpointPickerConfig::decode(other).unwrap_err().to_string();
        assert!(error.contains("use apiVersion llm-d.ai/v1alpha1"), "{error}");
    }
}

#[test]
fn unknown_fields_are_errors_with_their_path() {
    refused("pluginz: []", "pluginz");
    refused("plugins: [{type: queue-scorer, params: {}}]", "plugins[0].params");
    refused(
        "dataLayer: {discovery: {pluginref: x}}",
        "dataLayer.discovery.pluginref",
    );
    refused(
        "flowControl: {priorityBands: [{prio: 1}]}",
        "flowControl.priorityBands[0]",
    );
    refused(
        "plugins: [{name: p, type: approx-prefix-cache-producer, parameters: {blockSiz: 3}}]",
        "plugin 'p' (type 'approx-prefix-cache-producer'): parameters: blockSiz",
    );
    refused("plugins: [{type: queue-scorer, parameters: {any: 1}}]", "any");
    refused(
        "plugins: [{type: label-selector-filter, parameters: {matchExpressions: [{key: a, operator: Equals}]}}]",
        "matchExpressions[0].operator",
    );
}

#[test]
fn plugins_are_checked_one_by_one() {
    refused("plugins: [{name: X}]", "plugin 'X' is missing a type");
    refused(
        "plugins: [{parameters: {}}]",
        "plugin 'plugins[0]' is missing a type",
    );
    refused(
        "plugins: [{type: queue-scorer}, {type: queue-scorer}]",
        "duplicate plugin name 'queue-scorer'",
    );
    refused(
        "plugins: [{type: precise-prefix-cache-producer}]",
        "plugin type 'precise-prefix-cache-producer' is not registered",
    );
    refused(
        "plugins: [{type: load-aware-scorer, parameters: {threshold: 0}}]",
        "parameters.threshold: must be",
    );
    refused(
        "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: nobody}}]",
        "a plugin has a dependency on the unregistered plugin nobody",
    );
    refused(
        "plugins: [{name: a, type: inflight-load-producer}, {name: b, type: inflight-load-producer}]",
        "plugins 'a' and 'b' both account in-flight load",
    );
}

#[test]
fn profiles_are_checked() {
    refused(
        "schedulingProfiles: [{plugins: []}]",
        "schedulingProfiles[0] is missing a name",
    );
    refused(
        "schedulingProfiles: [{name: a}, {name: a}]",
        "schedulingProfiles[1] has the duplicate name 'a'",
    );
    refused(
        "schedulingProfiles: [{name: a, plugins: [{weight: 1}]}]",
        "schedulingProfiles[a].plugins[0] is missing a 'pluginRef'",
    );
    refused(
        "schedulingProfiles: [{name: a, plugins: [{pluginRef: x}]}]",
        "schedulingProfiles[a] references undefined plugin 'x'",
    );
    refused(
        "plugins: [{type: max-score-picker}, {type: random-picker}]
schedulingProfiles: [{name: a, plugins: [{pluginRef: max-score-picker}, {pluginRef: random-picker}]}]",
        "second picker 'random-picker'",
    );
    refused(
        "plugins: [{type: queue-scorer}]
schedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer, weight: .nan}]}]",
        "schedulingProfiles[a].plugins[0].weight",
    );
    refused(
        "schedulingProfiles: [{name: a}, {name: b}]",
        "no profile handler configured",
    );
    refused(
        "plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
        "SingleProfileHandler cannot support multiple scheduling profiles",
    );
    refused(
        "plugins: [{name: a, type: single-profile-handler}, {name: b, type: single-profile-handler}]",
        "multiple profile handlers found",
    );
}

#[test]
fn other_references_are_checked() {
    refused(
        "flowControl: {saturationDetector: {pluginRef: x}}",
        "saturation detector references undefined plugin 'x'",
    );
    refused(
        "plugins: [{type: queue-scorer}]\nflowControl: {saturationDetector: {pluginRef: queue-scorer}}",
        "not a saturation detector",
    );
    refused(
        "requestHandler: {parsers: [{pluginRef: x}]}",
        "parser references undefined plugin 'x'",
    );
    refused(
        "dataLayer: {discovery: {pluginRef: x}}",
        "dataLayer.discovery.pluginRef references undefined plugin 'x'",
    );
    refused(
        "plugins: [{type: queue-scorer}]\ndataLayer: {sources: [{pluginRef: queue-scorer}]}",
        "dataLayer.sources[0].pluginRef references 'queue-scorer', which is not a data source",
    );
    refused(
        "plugins: [{type: metrics-data-source}, {type: core-metrics-extractor}, {name: two, type: core-metrics-extractor}]
dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}, {pluginRef: two}]}]}",
        "dataLayer.sources[0] has the extractor type 'core-metrics-extractor' twice",
    );
}

#[test]
fn what_this_build_cannot_do_is_refused_by_name() {
    refused(
        "featureGates: [flowControl]",
        "feature gate 'flowControl' is not available in this build",
    );
    refused(
        "featureGates: [flowControl=1]",
        "feature gate 'flowControl' is not available",
    );
    refused(
        "featureGates: [dataLayer]",
        "feature gate 'dataLayer' is unknown or unregistered",
    );
    refused("featureGates: [flowControl=maybe]", "use true or false");
    refused(
        "dataLayer: {peerDiscovery: {pluginRef: x}}",
        "dataLayer.peerDiscovery is not available",
    );
    refused(
        "dataLayer: {crossReplicaSyncerPluginRef: x}",
        "dataLayer.crossReplicaSyncerPluginRef is not available",
    );
    assert!(assembled("featureGates: [flowControl=f, haPopulateNonLeaderDatastore]").is_ok());
}

#[test]
fn without_profiles_everything_configured_is_in_the_default_one() {
    let lines = warnings("plugins: [{type: decode-filter}, {type: queue-scorer}, {type: random-picker}]");
    assert_eq!(lines, [] as [String; 0]);
    let assembly = assembled("plugins: [{type: file-discovery, parameters: {path: /tmp/e.yaml}}]\ndataLayer: {discovery: {pluginRef: file-discovery}, injectDefaults: false}").unwrap();
    assert_eq!(
        assembly.warnings,
        ["schedulingProfiles[default] has no scorer: the least loaded endpoints are picked"]
    );
    assert!(assembly.data_layer.discovery.is_some());
    assert!(assembly.data_layer.sources.is_empty());
}

#[test]
fn listed_sources_keep_the_default_one_away() {
    let own = "plugins: [{name: mine, type: metrics-data-source, parameters: {path: /m}}, {type: core-metrics-extractor}]
dataLayer: {sources: [{pluginRef: mine, extractors: [{pluginRef: core-metrics-extractor}]}]}";
    let both: Vec<String> = sources(&assembled(own).unwrap())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(both, ["mine", "metrics-data-source"]);
    let listed = "plugins: [{type: metrics-data-source, parameters: {interval: 1s}}]\ndataLayer: {sources: [{pluginRef: metrics-data-source}]}";
    assert_eq!(
        sources(&assembled(listed).unwrap()),
        [("metrics-data-source".into(), vec![])]
    );
}

#[test]
fn deprecated_places_still_work_and_the_new_ones_win() {
    let lines = warnings(
        "saturationDetector: {pluginRef: utilization-detector}\nparser: {pluginRef: passthrough-parser}\nplugins: [{type: queue-scorer}]",
    );
    assert!(
        lines[0].starts_with("saturationDetector is deprecated")
            && lines[1].starts_with("parser is deprecated")
    );
    let assembly = assembled(
        "parser: {pluginRef: passthrough-parser}\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}",
    )
    .unwrap();
    assert_eq!(assembly.parsers[0].name.plugin_type, "openai-parser");
    refused(
        "saturationDetector: {pluginRef: x}",
        "saturation detector references undefined plugin 'x'",
    );
    assert!(assembled("saturationDetector: {pluginRef: x}\nflowControl: {saturationDetector: {pluginRef: utilization-detector}}").is_ok());
}

#[test]
fn queue_settings_without_the_gate_are_ignored_aloud() {
    let lines = warnings("plugins: [{type: queue-scorer}, {type: fcfs-ordering-policy}]
flowControl: {maxBytes: 1G, maxRequests: 2k, defaultRequestTTL: 30s, priorityBands: [{priority: 10, maxRequests: '2k'}]}");
    assert!(
        lines[0].contains("flowControl is ignored except saturationDetector"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("'fcfs-ordering-policy' has no effect"),
        "{lines:?}"
    );
    let only_detector = "plugins: [{type: queue-scorer}]\nflowControl: {saturationDetector: {pluginRef: utilization-detector}}";
    assert_eq!(warnings(only_detector), [] as [String; 0]);
    refused("flowControl: {maxBytes: -1}", "invalid quantity '-1'");
    refused(
        "flowControl: {defaultRequestTTL: 30}",
        "flowControl.defaultRequestTTL",
    );
}

#[test]
fn entries_without_effect_are_named() {
    let lines = warnings("plugins: [{type: queue-scorer}, {type: decode-filter}, {type: inflight-load-producer}]
schedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer}, {pluginRef: decode-filter, weight: 2}, {pluginRef: inflight-load-producer}]}]");
    assert_eq!(
        lines,
        [
            "schedulingProfiles[a].plugins[1].weight has no effect: 'decode-filter' is no scorer",
            "schedulingProfiles[a].plugins[2] has no effect: 'inflight-load-producer' neither filters, scores nor picks",
        ]
    );
    let second =
        warnings("plugins: [{name: mine, type: approx-prefix-cache-producer}, {type: prefix-cache-scorer}]");
    assert!(
        second[0].contains("a second producer 'approx-prefix-cache-producer'")
            && second[0].contains("'mine'"),
        "{second:?}"
    );
    let named = "plugins: [{name: mine, type: approx-prefix-cache-producer}, {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: mine}}]";
    assert_eq!(warnings(named), [] as [String; 0]);
}

#[test]
fn the_optimized_baseline_of_the_guides_loads() {
    let guide = "plugins:
- type: prefix-cache-affinity-filter
- type: token-load-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-affinity-filter
  - pluginRef: token-load-scorer
  - pluginRef: max-score-picker
";
    assert_eq!(warnings(guide), [] as [String; 0]);
}

proptest! {
    #[test]
    fn the_decoder_never_panics(text in "\\PC{0,300}") {
        let _ = validate(&text);
    }

    #[test]
    fn documents_with_odd_values_never_panic(
        key in "(plugins|schedulingProfiles|dataLayer|flowControl|featureGates|requestHandler|parser|saturationDetector)",
        value in "[\\[\\]{}:, a-z0-9.'\"-]{0,60}",
    ) {
        let _ = validate(&format!("{HEAD}{key}: {value}\n"));
    }

    #[test]
    fn parameters_never_panic(
        plugin in proptest::sample::select(crate::registry::TABLE.iter().map(|t| t.name).collect::<Vec<_>>()),
        field in "[a-zA-Z]{1,20}",
        value in "(-?[0-9]{1,30}|1e99|null|true|\\{\\}|\\[1\\]|\"x\"|\\.nan|-\\.inf)",
    ) {
        let _ = validate(&format!("{HEAD}plugins: [{{type: {plugin}, parameters: {{{field}: {value}}}}}]\n"));
    }
}
