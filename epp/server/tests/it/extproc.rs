//! Envoy's side of the protocol, message by message.

#![allow(clippy::float_cmp, reason = "counters hold small integers")]
#![allow(clippy::panic, reason = "a failed expectation of a test")]

use std::sync::Arc;
use std::time::Duration;

use llmd_epp::extproc::proto::{Answer, Event, ProcessingResponse};
use llmd_epp::grpc::MessageLimits;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::picker::{
    CHAT, Call, PATIENCE, Picker, Setup, head, request_body, response_body, response_head, subset, trailers,
};
use crate::wait::until_true;

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
async fn a_rewritten_model_is_the_only_change_and_is_undone_in_the_response() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    let body = br#"{"b":1,"model":"m","a":9007199254740993,"messages":[{"role":"user","content":"\u0041"}]}"#;
    call.request(
        &[("x-llm-d-model-name-rewrite", "m-lora\"1")],
        &[&body[..13], &body[13..]],
    )
    .await;
    let forwarded = call.forwarded().await;
    let expected =
        br#"{"b":1,"model":"m-lora\"1","a":9007199254740993,"messages":[{"role":"user","content":"\u0041"}]}"#;
    assert_eq!(
        String::from_utf8_lossy(&forwarded.body),
        String::from_utf8_lossy(expected)
    );
    assert_eq!(forwarded.set("Content-Length"), Some(expected.len().to_string()));
    let labels = [("model_name", "m"), ("target_model_name", "m-lora\"1")];
    assert_eq!(picker.metric("llm_d_epp_request_total", &labels), 1.0);

    call.send(response_head(&[
        (":status", "200"),
        ("content-type", "application/json"),
    ]))
    .await;
    call.answer().await;
    call.send(response_body(br#"{"model":"m-lo"#, false)).await;
    call.send(response_body(br#"ra\"1","x":1}"#, true)).await;
    let mut response = Vec::new();
    loop {
        let chunk = call.response_chunk().await;
        response.extend_from_slice(&chunk.body);
        if chunk.end_of_stream {
            break;
        }
    }
    assert_eq!(String::from_utf8_lossy(&response), r#"{"model":"m","x":1}"#);
}

#[tokio::test]
async fn a_streamed_response_passes_through_and_its_usage_is_counted_also_when_split() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    call.send(response_head(&[
        (":status", "200"),
        ("content-type", "text/event-stream"),
    ]))
    .await;
    let answer = call.answer().await;
    let Some(Answer::ResponseHeaders(common)) = answer.answer else {
        panic!("not the head: {answer:?}")
    };
    let mutation = common
        .response
        .and_then(|response| response.header_mutation)
        .expect("changes");
    let header = mutation.set_headers[0].header.clone().expect("a header");
    assert_eq!(
        (&header.key[..], &header.raw_value[..]),
        (&b"x-went-into-resp-headers"[..], &b"true"[..])
    );
    let chunks: [&[u8]; 4] = [
        b"data: {}\n\n",
        b"data: {\"usage\":{\"prompt_tokens\":7,\"comple",
        b"tion_tokens\":10,\"total_tokens\":17}}\n\n",
        b"data: [DONE]\n\n",
    ];
    for chunk in chunks {
        call.send(response_body(chunk, false)).await;
        assert_eq!(call.response_chunk().await.body, chunk);
    }
    assert_eq!(picker.load(), (1, 0), "tokens are given back at the first chunk");
    call.send(response_body(b"", true)).await;
    let last = call.response_chunk().await;
    assert!(last.end_of_stream && last.body.is_empty());
    call.half_close();
    assert!(call.next().await.is_none());
    assert_eq!(picker.load(), (0, 0));
    assert_eq!(picker.metric("inference_objective_input_tokens", &[]), 7.0);
    assert_eq!(
        picker.metric("llm_d_epp_request_output_tokens", &[("model_name", "m")]),
        10.0
    );
    until_true("the stream is counted", || {
        picker.metric("llm_d_epp_extproc_streams_total", &[("code", "OK")]) == 1.0
    })
    .await;
    assert_eq!(picker.metric("llm_d_epp_extproc_streams_inflight", &[]), 0.0);
}

#[tokio::test]
async fn trailers_end_both_bodies_and_are_answered_last() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.send(head(&[(":path", "/v1/chat/completions")], false)).await;
    call.send(request_body(CHAT, false)).await;
    call.send(Event::RequestTrailers(trailers())).await;
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::RequestHeaders(_))
    ));
    let answer = call.answer().await;
    let Some(Answer::RequestBody(common)) = answer.answer else {
        panic!("not the body: {answer:?}")
    };
    let chunk = common
        .response
        .and_then(|response| response.body_mutation?.streamed_response);
    let chunk = chunk.expect("a chunk");
    assert_eq!((&chunk.body[..], chunk.end_of_stream), (CHAT, false));
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::RequestTrailers(_))
    ));

    call.send(response_head(&[(":status", "200")])).await;
    call.answer().await;
    call.send(response_body(b"{}", false)).await;
    assert!(!call.response_chunk().await.end_of_stream);
    call.send(Event::ResponseTrailers(trailers())).await;
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::ResponseTrailers(_))
    ));
    assert_eq!(picker.load(), (0, 0));
}

#[tokio::test]
async fn a_duplicate_end_of_stream_is_ignored() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.send(request_body(b"", true)).await;
    call.forwarded().await;
    call.send(response_head(&[(":status", "200")])).await;
    assert!(matches!(
        call.answer().await.answer,
        Some(Answer::ResponseHeaders(_))
    ));
    assert_eq!(picker.metric("llm_d_epp_request_total", &[]), 1.0);
}

#[tokio::test]
async fn an_abort_at_any_point_gives_the_load_back() {
    let picker = Picker::start(Setup::default()).await;
    for stage in 0..5 {
        let mut call = picker.open().await;
        call.send(head(&[(":path", "/v1/chat/completions")], false)).await;
        if stage > 0 {
            call.send(request_body(&CHAT[..20], false)).await;
        }
        if stage > 1 {
            call.send(request_body(&CHAT[20..], true)).await;
            call.forwarded().await;
            assert_eq!(picker.load().0, 1);
        }
        if stage > 2 {
            call.send(response_head(&[
                (":status", "200"),
                ("content-type", "text/event-stream"),
            ]))
            .await;
            call.answer().await;
        }
        if stage > 3 {
            call.send(response_body(b"data: {}\n\n", false)).await;
            call.response_chunk().await;
        }
        drop(call);
        until_true("the load is given back", || picker.load() == (0, 0)).await;
        until_true("nothing runs", || {
            picker.metric("llm_d_epp_request_running", &[]) == 0.0
        })
        .await;
    }
    assert_eq!(
        picker.metric("llm_d_epp_request_error_total", &[]),
        0.0,
        "clients may leave"
    );
    until_true("no stream is left", || {
        picker.metric("llm_d_epp_extproc_streams_inflight", &[]) == 0.0
    })
    .await;
}

#[tokio::test]
async fn rejections_are_immediate_responses_in_upstreams_words() {
    type Case<'a> = (u8, &'a [u8], i32, &'a str, Option<&'a str>);
    let cases: [Case<'_>; 4] = [
        (
            1,
            b"no healthy upstream",
            400,
            "inference error: BadRequest - error unmarshaling request bodyMap: ",
            None,
        ),
        (
            0,
            br#"{"messages":[{"role":"user","content":"hello world"}]}"#,
            400,
            "inference error: BadRequest - model not found in request body",
            None,
        ),
        (
            0,
            CHAT,
            503,
            "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
            Some("rejected-no-endpoints"),
        ),
        (
            1,
            &[b' '; 200],
            413,
            "inference error: PayloadTooLarge - request body is larger than the limit of 128 bytes",
            None,
        ),
    ];
    for (endpoints, body, status, text, reason) in cases {
        let picker = Picker::start(Setup {
            endpoints,
            max_body: 128,
            ..Setup::default()
        })
        .await;
        let mut call = picker.open().await;
        call.request(&[], &[body]).await;
        let response = call.immediate().await;
        assert_eq!(response.status.map(|status| status.code), Some(status));
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert!(body.starts_with(text), "{body}");
        let set = response
            .headers
            .map(|headers| headers.set_headers)
            .unwrap_or_default();
        let set: Vec<_> = set.into_iter().filter_map(|option| option.header).collect();
        match reason {
            None => assert!(set.is_empty()),
            Some(reason) => {
                assert_eq!(set[0].key, "x-llm-d-request-dropped-reason");
                assert_eq!(set[0].raw_value, reason);
            }
        }
        assert!(call.next().await.is_none(), "the stream ends with OK");
        assert_eq!(picker.metric("llm_d_epp_request_error_total", &[]), 1.0);
    }
}

#[tokio::test]
async fn a_subset_hint_restricts_the_pool() {
    let picker = Picker::start(Setup::default()).await;
    for (entries, destination) in [
        (&["192.168.1.3:9999"][..], Some("192.168.1.3:8000")),
        (
            &["192.168.1.2:8000", "192.168.1.3:8000"],
            Some("192.168.1.2:8000"),
        ),
        (&["192.168.1.99:8000"], None),
        (&[], None),
    ] {
        let mut call = picker.open().await;
        let hint = Some(subset(entries));
        call.send_with(head(&[(":path", "/v1/chat/completions")], false), hint.clone())
            .await;
        call.send_with(request_body(CHAT, true), hint).await;
        if let Some(destination) = destination {
            let forwarded = call.forwarded().await;
            assert_eq!(
                forwarded.set("x-gateway-destination-endpoint").as_deref(),
                Some(destination)
            );
        } else {
            let response = call.immediate().await;
            assert_eq!(response.status.map(|status| status.code), Some(503));
        }
        drop(call);
        until_true("the load is given back", || picker.load().0 == 0).await;
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

#[tokio::test]
async fn engine_errors_are_counted_by_the_pseudo_header() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    call.send(response_head(&[(":status", "500")])).await;
    call.answer().await;
    let labels = [("error_code", "ModelServerError"), ("model_name", "m")];
    assert_eq!(picker.metric("llm_d_epp_request_error_total", &labels), 1.0);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_with_an_error() {
    let limits = MessageLimits {
        receive: 1000,
        ..MessageLimits::default()
    };
    let picker = Picker::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut call = picker.open().await;
    call.request(&[], &[&[b' '; 2000]]).await;
    let status = call.next().await.expect("an end").expect_err("an error");
    assert_eq!(status.code(), Code::Unknown);
    assert!(
        status.message().starts_with("cannot receive stream request: "),
        "{status}"
    );
}

#[tokio::test]
async fn messages_out_of_order_are_refused() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.send(request_body(CHAT, true)).await;
    let status = call.next().await.expect("an end").expect_err("an error");
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut call = picker.open().await;
    call.send(head(&[], false)).await;
    call.send(head(&[], false)).await;
    let status = call.next().await.expect("an end").expect_err("an error");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_drain_lets_open_streams_finish_and_takes_no_new_connections() {
    let picker = Picker::start(Setup::default()).await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    picker.stop.cancel();
    until_true("the port is closed", || {
        std::net::TcpStream::connect(picker.address).is_err()
    })
    .await;
    call.send(response_head(&[(":status", "200")])).await;
    call.answer().await;
    call.send(response_body(b"{}", true)).await;
    assert!(call.response_chunk().await.end_of_stream);
    call.half_close();
    assert!(call.next().await.is_none());
    drop(call);
    tokio::time::timeout(PATIENCE, picker.served)
        .await
        .expect("ends in time")
        .expect("no panic");
}

#[tokio::test]
async fn a_stream_that_outlives_the_drain_is_cut() {
    let picker = Picker::start(Setup {
        drain: Duration::ZERO,
        ..Setup::default()
    })
    .await;
    let mut call = picker.open().await;
    call.request(&[], &[CHAT]).await;
    call.forwarded().await;
    let slots = Arc::clone(&picker.snapshot);
    picker.stop.cancel();
    tokio::time::timeout(PATIENCE, picker.served)
        .await
        .expect("ends in time")
        .expect("no panic");
    assert!(!matches!(call.next().await, Some(Ok(_))));
    until_true("the load is given back", || {
        slots
            .endpoints
            .iter()
            .all(|endpoint| endpoint.slot().requests() == 0)
    })
    .await;
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let picker = Picker::start(Setup::default()).await;
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", picker.address)).expect("valid");
    let channel = channel.connect().await.expect("connects");
    let mut calls = Vec::new();
    for _ in 0..300 {
        let mut call = Call::open(channel.clone()).await;
        call.request(&[], &[CHAT]).await;
        calls.push(call);
    }
    for call in &mut calls {
        call.forwarded().await;
    }
    assert_eq!(picker.load().0, 300);
    assert!(
        picker
            .snapshot
            .endpoints
            .iter()
            .all(|endpoint| endpoint.slot().requests() == 100)
    );
    drop(calls);
    until_true("the load is given back", || picker.load() == (0, 0)).await;
}
