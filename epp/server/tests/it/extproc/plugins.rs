//! What plugins of a configuration change about a request and its response.

use llmd_epp::extproc::proto::{Answer, ProcessingResponse};
use prost_types::value::Kind;

use crate::picker::{CHAT, Call, Picker, Setup, response_body, response_head, served};

/// The first endpoint decodes, the second one prefills.
const DISAGGREGATED: &str = "
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: always-disagg-pd-decider}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}]}
- {name: decode, plugins: [{pluginRef: decode-filter}]}
";
const DECODE: &[(&str, &str)] = &[("llm-d.ai/role", "decode")];
const PREFILL: &[(&str, &str)] = &[("llm-d.ai/role", "prefill")];
const PREFILLER: &str = "x-prefiller-host-port";
const DESTINATION: &str = "x-gateway-destination-endpoint";

async fn picker(config: &'static str, labels: &'static [&'static [(&'static str, &'static str)]]) -> Picker {
    Picker::start(Setup {
        endpoints: u8::try_from(labels.len()).expect("few").max(1),
        config,
        labels,
        ..Setup::default()
    })
    .await
}

/// A number of `envoy.lb` in an answer's dynamic metadata.
fn number(answer: &ProcessingResponse, key: &str) -> Option<f64> {
    let namespace = answer.dynamic_metadata.as_ref()?.fields.get("envoy.lb")?;
    let Some(Kind::StructValue(entries)) = &namespace.kind else {
        return None;
    };
    match &entries.fields.get(key)?.kind {
        Some(Kind::NumberValue(number)) => Some(*number),
        _ => None,
    }
}

/// What a header of the response is set to.
fn response_header(answer: &ProcessingResponse, name: &str) -> Option<String> {
    let Some(Answer::ResponseHeaders(common)) = &answer.answer else {
        return None;
    };
    let mutation = common.response.as_ref()?.header_mutation.as_ref()?;
    mutation.set_headers.iter().find_map(|option| {
        let header = option.header.as_ref()?;
        (header.key == name).then(|| String::from_utf8(header.raw_value.to_vec()).expect("text"))
    })
}

async fn routed(picker: &Picker, extra: &[(&str, &str)]) -> (Call, crate::picker::Forwarded) {
    let mut call = picker.open().await;
    call.request(extra, &[CHAT]).await;
    let forwarded = call.forwarded().await;
    (call, forwarded)
}

#[tokio::test]
async fn the_sidecar_is_told_where_to_prefill_whatever_the_client_says() {
    let picker = picker(DISAGGREGATED, &[DECODE, PREFILL]).await;
    let (_call, forwarded) = routed(&picker, &[(PREFILLER, "evil:1")]).await;
    assert_eq!(forwarded.set(DESTINATION).as_deref(), Some("192.168.1.1:8000"));
    assert_eq!(forwarded.set(PREFILLER).as_deref(), Some("192.168.1.2:8000"));
    assert!(
        forwarded
            .mutation
            .set_headers
            .iter()
            .all(|option| option.append_action == 2),
        "a client's value is replaced, not joined"
    );
    let labels = [("decision_type", "prefill-decode"), ("model_name", "m")];
    assert_eq!(picker.metric("llm_d_epp_disagg_decision_total", &labels), 1.0);
    assert_eq!(picker.load().0, 2, "both endpoints carry the request");
}

#[tokio::test]
async fn without_a_prefill_endpoint_a_client_s_header_is_taken_away() {
    let picker = picker(DISAGGREGATED, &[DECODE]).await;
    let (_call, forwarded) = routed(&picker, &[(PREFILLER, "evil:1")]).await;
    assert_eq!(forwarded.set(PREFILLER), None);
    assert_eq!(forwarded.mutation.remove_headers, [PREFILLER]);
    let labels = [("decision_type", "decode-only")];
    assert_eq!(picker.metric("llm_d_epp_disagg_decision_total", &labels), 1.0);
}

#[tokio::test]
async fn the_primary_port_is_the_destination_and_the_rank_a_header() {
    let config = "plugins: [{type: data-parallel-profile-handler, parameters: {primaryPort: 9000}}]";
    let picker = picker(config, &[]).await;
    let (_call, forwarded) = routed(&picker, &[]).await;
    assert_eq!(forwarded.set(DESTINATION).as_deref(), Some("192.168.1.1:9000"));
    assert_eq!(
        forwarded.set("x-data-parallel-host-port").as_deref(),
        Some("192.168.1.1:8000")
    );
}

#[tokio::test]
async fn usage_is_reported_with_the_last_answer_of_any_response() {
    let config = "
plugins:
- type: request-attribute-reporter
  parameters:
    attributes:
    - {key: {name: x-gateway-inference-request-cost}, expression: usage.completion_tokens}
";
    let picker = picker(config, &[]).await;
    let unary = r#"{"usage":{"prompt_tokens":11,"completion_tokens":10,"total_tokens":21}}"#;
    let streamed = format!("data: {unary}\n\ndata: [DONE]\n\n");
    for (content_type, body) in [
        ("application/json", unary),
        ("text/event-stream", streamed.as_str()),
    ] {
        let (mut call, _) = routed(&picker, &[]).await;
        let head = [(":status", "200"), ("content-type", content_type)];
        call.send(response_head(&head)).await;
        assert_eq!(call.answer().await.dynamic_metadata, None);
        call.send(response_body(body.as_bytes(), true)).await;
        let cost = loop {
            let answer = call.answer().await;
            if let Some(cost) = number(&answer, "x-gateway-inference-request-cost") {
                break cost;
            }
        };
        assert_eq!(cost, 10.0, "{content_type}");
    }
}

#[tokio::test]
async fn a_response_says_which_endpoint_the_proxy_named() {
    let picker = picker("plugins: [{type: destination-endpoint-served-verifier}]", &[]).await;
    for (metadata, expected) in [
        (Some(served("192.168.1.1:8000")), "192.168.1.1:8000"),
        (None, "fail: missing envoy lb metadata"),
    ] {
        let (mut call, _) = routed(&picker, &[]).await;
        call.send_with(response_head(&[(":status", "200")]), metadata)
            .await;
        let answer = call.answer().await;
        let stamped = response_header(&answer, "x-conformance-test-served-endpoint");
        assert_eq!(stamped.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn an_agent_s_session_is_the_flow_of_its_requests() {
    let picker = picker("plugins: [{type: agent-identity}]", &[]).await;
    routed(&picker, &[("x-claude-code-session-id", "s1")]).await;
    assert_eq!(
        picker.metric("llm_d_epp_request_total", &[("fairness_id", "s1")]),
        1.0
    );
}

#[tokio::test]
async fn a_request_without_a_revision_to_go_to_is_503() {
    let config = "
plugins:
- type: disaggregatedset-rollout-screener
  parameters:
    scope: {labelSelector: llm-d.ai/role}
    revisionGating: {mode: sum, requireRoles: {values: [decode]}, revisionLabelKey: revision, roleLabelKey: llm-d.ai/role}
";
    let picker = picker(config, &[DECODE]).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    let response = call.immediate().await;
    assert_eq!(response.status.expect("a status").code, 503);
    assert_eq!(
        response.body,
        "inference error: ServiceUnavailable - screeners eliminated all endpoint candidates"
    );
}

#[tokio::test]
async fn a_conditional_request_is_412_until_its_prefix_is_cached() {
    let config = "plugins: [{type: prefix-cache-scorer}]";
    let picker = picker(config, &[]).await;
    let text = "a prompt of more than one block ".repeat(40);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let conditional = [("prefer", "if-available")];
    let mut call = picker.open().await;
    call.request(&conditional, &[body.as_bytes()]).await;
    let response = call.immediate().await;
    assert_eq!(response.status.expect("a status").code, 412);
    assert_eq!(
        response.body,
        "inference error: PreconditionFailed - no decode worker has the requested KV cache"
    );
    assert_eq!(picker.load(), (0, 0));

    let mut warming = picker.open().await;
    warming.request(&[], &[body.as_bytes()]).await;
    warming.forwarded().await;
    warming
        .send(response_head(&[
            (":status", "200"),
            ("content-type", "application/json"),
        ]))
        .await;
    warming.answer().await;
    warming.send(response_body(b"{}", true)).await;
    warming.answer().await;
    let mut call = picker.open().await;
    call.request(&conditional, &[body.as_bytes()]).await;
    call.forwarded().await;
}

#[tokio::test]
async fn requests_with_one_prompt_wait_for_each_other_and_go_to_one_endpoint() {
    let config = "
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
    let picker = Picker::start(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut calls = Vec::new();
    for _ in 0..6 {
        calls.push(picker.open().await);
    }
    for call in &mut calls {
        call.request(&[], &[CHAT]).await;
    }
    let mut destinations = Vec::new();
    for call in &mut calls {
        destinations.push(call.forwarded().await.set(DESTINATION));
    }
    destinations.dedup();
    assert_eq!(destinations.len(), 1, "{destinations:?}");
    assert_eq!(picker.load().0, 6);
}

#[tokio::test]
async fn a_client_that_leaves_its_group_leaves_nothing_behind() {
    let config = "plugins: [{type: burst-prefix-cache-producer, parameters: {windowDurationMs: 10000}}, {type: random-picker}]";
    let picker = picker(config, &[]).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.half_close();
    assert!(call.next().await.is_none(), "the stream ends with OK");
    assert_eq!(picker.load(), (0, 0));
}

/// The status, body and drop reason of a request for the objective `batch`.
async fn shed(picker: &Picker) -> (i32, String, Option<String>) {
    let mut call = picker.open().await;
    call.request(&[("x-llm-d-inference-objective", "batch")], &[CHAT])
        .await;
    let response = call.immediate().await;
    let headers = response.headers.map(|headers| headers.set_headers);
    let headers = headers.unwrap_or_default().into_iter();
    let reason = headers.filter_map(|option| option.header).find_map(|header| {
        (header.key == "x-llm-d-request-dropped-reason")
            .then(|| String::from_utf8(header.raw_value.to_vec()).expect("text"))
    });
    (
        response.status.expect("a status").code,
        String::from_utf8(response.body.to_vec()).expect("text"),
        reason,
    )
}

#[tokio::test]
async fn sheddable_requests_are_shed_when_the_pool_is_full_and_others_are_not() {
    // Endpoints that were never scraped count as full.
    let picker = Picker::start(Setup {
        config: "plugins: [{type: random-picker}]",
        objectives: &[("batch", -1)],
        ..Setup::default()
    })
    .await;
    let (status, body, reason) = shed(&picker).await;
    assert_eq!(
        (status, body.as_str(), reason),
        (
            429,
            "inference error: ResourceExhausted - system saturated, sheddable request dropped",
            None
        )
    );
    routed(&picker, &[]).await;
}

#[tokio::test]
async fn an_admitter_s_refusal_says_that_capacity_is_contended() {
    let config = "
plugins:
- {type: probabilistic-admitter, parameters: {queueDepthThreshold: 1, k: 1000}}
- {type: concurrency-detector, parameters: {maxConcurrency: 1000}}
- {type: random-picker}
flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
";
    let picker = Picker::start(Setup {
        config,
        objectives: &[("batch", -1)],
        waiting: 5,
        ..Setup::default()
    })
    .await;
    let (status, body, reason) = shed(&picker).await;
    assert_eq!(
        (status, body.as_str(), reason.as_deref()),
        (
            429,
            "inference error: ResourceExhausted - request cannot be admitted: probabilistic-admitter: rejected, saturation=5.000 prob=1.00",
            Some("rejected-saturated")
        )
    );
    assert_eq!(picker.load(), (0, 0));
    routed(&picker, &[]).await;
}
