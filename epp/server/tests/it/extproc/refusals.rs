//! Requests that are not routed, and why.

use llmd_epp::grpc::MessageLimits;
use tonic::Code;

use crate::picker::{CHAT, Picker, Setup, head, request_body, subset};
use crate::wait::until_true;

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
async fn bodies_over_the_common_budget_are_shed_and_their_memory_is_given_back() {
    let setup = Setup {
        max_buffered: CHAT.len() + 10,
        ..Setup::default()
    };
    let picker = Picker::start(setup).await;
    let mut waiting = picker.open().await;
    waiting
        .send(head(&[(":path", "/v1/chat/completions")], false))
        .await;
    waiting.send(request_body(&CHAT[..20], false)).await;
    until_true("the chunk is held", || picker.bodies.used() == 20).await;
    let mut shed = picker.open().await;
    shed.request(&[], &[CHAT]).await;
    let response = shed.immediate().await;
    assert_eq!(response.status.map(|status| status.code), Some(429));
    let reason = response
        .headers
        .and_then(|headers| headers.set_headers[0].header.clone());
    assert_eq!(reason.expect("a reason").raw_value, "rejected-saturated");
    waiting.send(request_body(&CHAT[20..], true)).await;
    assert_eq!(waiting.forwarded().await.body, CHAT);
    assert_eq!(picker.bodies.used(), 0);

    let mut aborted = picker.open().await;
    aborted
        .send(head(&[(":path", "/v1/chat/completions")], false))
        .await;
    aborted.send(request_body(&CHAT[..20], false)).await;
    until_true("the chunk is held", || picker.bodies.used() == 20).await;
    drop(aborted);
    until_true("the memory is given back", || picker.bodies.used() == 0).await;
}
