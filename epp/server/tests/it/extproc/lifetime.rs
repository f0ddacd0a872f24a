//! How streams end: trailers, aborts, drain.

use std::sync::Arc;
use std::time::Duration;

use llmd_epp::extproc::proto::{Answer, Event};

use crate::picker::{
    CHAT, Call, PATIENCE, Picker, Setup, head, request_body, response_body, response_head, trailers,
};
use crate::wait::until_true;

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
