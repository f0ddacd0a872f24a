//! What a request becomes: destination, metadata, headers, body.

use llmd_epp::extproc::proto::{Answer, ProcessingResponse};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::picker::{CHAT, Picker, Setup, head, request_body, subset};

fn field<'a>(metadata: &'a Struct, name: &str) -> Option<&'a Value> {
    metadata.fields.get(name)
}

/// `envoy.lb` of an answer's dynamic metadata.
fn load_balancer(answer: &ProcessingResponse) -> &Struct {
    let metadata = answer.dynamic_metadata.as_ref().expect("dynamic metadata");
    match field(metadata, "envoy.lb").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(namespace)) => namespace,
        other => panic!("no envoy.lb: {other:?}"),
    }
}

#[tokio::test]
async fn the_head_is_answered_after_the_body_with_destination_and_metadata() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[("x-request-id", "r1"), ("hi", "mom")], &[CHAT])
        .await;
    let forwarded = call.forwarded().await;
    let destination = "x-gateway-destination-endpoint";
    assert_eq!(forwarded.set(destination).as_deref(), Some("192.168.1.1:8000"));
    assert_eq!(forwarded.set("Content-Length"), Some(CHAT.len().to_string()));
    assert_eq!(
        forwarded.set("x-request-id"),
        None,
        "an id that the client sent is not set again"
    );
    assert_eq!(forwarded.set("hi"), None, "only changed headers are sent");
    assert!(
        forwarded
            .mutation
            .set_headers
            .iter()
            .all(|option| option.append_action == 2)
    );
    let namespace = load_balancer(&forwarded.head);
    assert_eq!(
        field(namespace, destination).and_then(|value| value.kind.clone()),
        Some(Kind::StringValue("192.168.1.1:8000".into()))
    );
    assert_eq!(field(namespace, "x-gateway-destination-endpoint-scores"), None);
    let Some(Answer::RequestHeaders(common)) = &forwarded.head.answer else {
        unreachable!("checked before")
    };
    assert!(
        common
            .response
            .as_ref()
            .is_some_and(|response| response.clear_route_cache)
    );
    assert_eq!(forwarded.body, CHAT);
    assert_eq!(picker.load(), (1, CHAT.len() as u64));
}

#[tokio::test]
async fn a_request_without_an_id_gets_one() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    let id = call.forwarded().await.set("x-request-id").expect("an id");
    assert_eq!(id.len(), 36);
}

#[tokio::test]
async fn bodies_in_odd_chunks_come_back_byte_identical() {
    let picker = Picker::start(Setup::default()).await;
    for size in [1, 7, 62_000, 1_200_000] {
        let content = "\\u00e9 9007199254740993 ".repeat(size / 24 + 1);
        let body = format!(
            "{{ \"z\": 123456789012345678901234567890, \"model\" : \"m\",\n\"a\":1e400, \"messages\":[{{\"role\":\"user\",\"content\":\"{content}\"}}]}}"
        );
        for step in [1_021, 16_384, 65_535] {
            let mut call = picker.open().await;
            let chunks: Vec<&[u8]> = body.as_bytes().chunks(step).collect();
            call.request(&[], &chunks).await;
            let forwarded = call.forwarded().await;
            assert!(forwarded.body == body.as_bytes(), "{size} bytes in {step}");
            assert!(
                forwarded.chunks.iter().all(|len| *len <= 62_000),
                "{:?}",
                forwarded.chunks
            );
        }
    }
}

#[tokio::test]
async fn a_get_without_a_body_is_picked_like_any_request() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    let hint = Some(subset(&["192.168.1.2:8000"]));
    call.send_with(head(&[(":path", "/v1/models"), (":method", "GET")], true), hint)
        .await;
    let answer = call.answer().await;
    let Some(Answer::RequestHeaders(common)) = answer.answer else {
        panic!("not the head: {answer:?}")
    };
    let mutation = common
        .response
        .and_then(|response| response.header_mutation)
        .expect("changes");
    let set: Vec<_> = mutation
        .set_headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .collect();
    assert_eq!(set[0].raw_value, "192.168.1.2:8000");
    assert!(set.iter().all(|header| header.key != "Content-Length"));

    let empty = Picker::start(Setup {
        endpoints: 0,
        ..Setup::default()
    })
    .await;
    let mut call = empty.open().await;
    call.send(head(&[(":path", "/v1/models"), (":method", "GET")], true))
        .await;
    assert_eq!(call.immediate().await.status.map(|status| status.code), Some(503));
}

#[tokio::test]
async fn an_upgrade_is_answered_on_its_head_and_passes_through() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    let headers = [
        (":path", "/v1/realtime"),
        (":method", "GET"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    call.send(head(&headers, false)).await;
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::RequestHeaders(_))
    ));
    for bytes in [&b"frame-1"[..], b"frame-2"] {
        call.send(request_body(bytes, false)).await;
        let answer = call.answer().await;
        let Some(Answer::RequestBody(common)) = answer.answer else {
            panic!("not a body: {answer:?}")
        };
        let chunk = common
            .response
            .and_then(|response| response.body_mutation?.streamed_response);
        assert_eq!(chunk.expect("a chunk").body, bytes);
    }
}

#[tokio::test]
async fn routing_outputs_of_the_client_are_removed() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    let evil = [
        ("x-prefiller-host-port", "10.6.6.6:1"),
        ("x-gateway-destination-endpoint", "10.6.6.6:2"),
        ("X-Data-Parallel-Host-Port", "10.6.6.6:3"),
    ];
    call.request(&evil, &[CHAT]).await;
    let forwarded = call.forwarded().await;
    assert_eq!(
        forwarded.mutation.remove_headers,
        ["x-prefiller-host-port", "x-data-parallel-host-port"]
    );
    let destination = forwarded.set("x-gateway-destination-endpoint");
    assert_eq!(destination.as_deref(), Some("192.168.1.1:8000"));
}

#[tokio::test]
async fn scores_are_emitted_when_asked_for() {
    let picker = Picker::start(Setup {
        emit_endpoint_scores: true,
        ..Setup::default()
    })
    .await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    let forwarded = call.forwarded().await;
    let namespace = load_balancer(&forwarded.head);
    let scores =
        field(namespace, "x-gateway-destination-endpoint-scores").and_then(|value| value.kind.clone());
    let Some(Kind::StructValue(scores)) = scores else {
        panic!("no scores: {scores:?}")
    };
    assert_eq!(
        field(&scores, "192.168.1.1:8000").and_then(|value| value.kind.clone()),
        Some(Kind::NumberValue(0.5))
    );
}
