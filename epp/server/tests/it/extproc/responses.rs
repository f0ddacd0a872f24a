//! What a response becomes, and what is read from it.

use llmd_epp::extproc::proto::Answer;

use crate::picker::{CHAT, Picker, Setup, response_body, response_head};
use crate::wait::until_true;

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
