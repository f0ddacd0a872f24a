//! Prefill there, decode here.

use axum::body::Body;
use bytes::Bytes;
use http::Response;

use crate::Sidecar;
use crate::engine::{Engine, request, send};

const PREFILLED: &str = r#"{"id":"p","choices":[{"text":" x"}],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":3}},"kv_transfer_params":{"do_remote_prefill":true,"remote_block_ids":[[1,2]],"remote_engine_id":"e","remote_host":"10.0.0.1","remote_port":5600,"tp_size":1}}"#;
const DECODED: &str = r#"{"id":"d","choices":[{"text":"hello"}],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":9}}}"#;

#[tokio::test]
async fn the_decode_engine_is_told_where_the_blocks_are() {
    let prefill = Engine::saying(200, PREFILLED).await;
    let decode = Engine::saying(200, DECODED).await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let body = r#"{"model":"m","prompt":"a long prompt","max_tokens":50,"seed":12345678901234567890}"#;
    let headers = [
        ("x-prefiller-host-port", prefill.address.to_string()),
        ("authorization", "Bearer k".to_owned()),
    ];
    let (status, headers, answer) =
        send(sidecar.addresses[0], request("/v1/completions", &headers, body)).await;

    let [leg] = &prefill.got()[..] else {
        panic!("one prefill leg: {:?}", prefill.got())
    };
    assert_eq!(leg.path, "/v1/completions");
    assert!(
        leg.body.contains(r#""max_tokens":1,"seed":12345678901234567890"#),
        "{}",
        leg.body
    );
    assert!(leg.body.contains(r#""do_remote_decode":true"#), "{}", leg.body);
    let [main] = &decode.got()[..] else {
        panic!("one decode leg: {:?}", decode.got())
    };
    let params = &PREFILLED[PREFILLED.find("{\"do_remote_prefill").expect("there")..PREFILLED.len() - 1];
    assert_eq!(
        main.body,
        format!("{},\"kv_transfer_params\":{params}}}", &body[..body.len() - 1])
    );
    for got in [leg, main] {
        assert_eq!(got.header("x-prefiller-host-port"), None);
        assert_eq!(got.header("authorization"), Some("Bearer k"));
        assert_eq!(
            got.header("content-length"),
            Some(got.body.len().to_string().as_str())
        );
    }
    let id = leg.header("x-request-id").expect("named");
    assert_eq!(main.header("x-request-id"), Some(id));
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        DECODED.replace(r#""cached_tokens":9"#, r#""cached_tokens":3"#)
    );
    assert_eq!(headers.get("content-type").expect("told"), "application/json");
    assert!(sidecar.counts("llm_d_disagg_sidecar_prefills_total{where=\"remote\"} 1"));
}

#[tokio::test]
async fn streams_pass_event_by_event_with_the_prefill_engines_count() {
    let prefill = Engine::saying(200, PREFILLED).await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let decode = Engine::start(move |got| {
        assert!(got.body.contains("\"stream\":true"), "{}", got.body);
        let mut receiver = receiver.lock().expect("held").take().expect("asked once");
        let events = futures_util::stream::poll_fn(move |cx| {
            receiver
                .poll_recv(cx)
                .map(|event| event.map(|event| Ok::<_, std::io::Error>(Bytes::from_static(event.as_bytes()))))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(events))
            .expect("valid")
    })
    .await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let body = r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
    let headers = [("x-prefiller-host-port", prefill.address.to_string())];
    sender
        .send("data: {\"choices\":[{\"delta\":{}}]}\n\n")
        .expect("open");
    sender
        .send("data: {\"choices\":[],\"usage\":{\"prompt_tokens_details\":{\"cached_")
        .expect("open");
    sender.send("tokens\":9}}}\n\ndata: [DONE]\n\n").expect("open");
    drop(sender);
    let asked = request("/v1/chat/completions", &headers, body);
    let (status, _, answer) = send(sidecar.addresses[0], asked).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        "data: {\"choices\":[{\"delta\":{}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens_details\":\
         {\"cached_tokens\":3}}}\n\ndata: [DONE]\n\n"
    );
    let leg = &prefill.got()[0].body;
    assert!(leg.contains(r#""stream":false,"stream_options":null"#), "{leg}");
}

#[tokio::test]
async fn the_first_of_several_prefill_engines_is_asked() {
    let (one, two) = (
        Engine::saying(200, PREFILLED).await,
        Engine::saying(200, PREFILLED).await,
    );
    let decode = Engine::saying(200, DECODED).await;
    let sidecar = Sidecar::start("", &[decode.address]).await;
    let hosts = format!("{}, {}", one.address, two.address);
    let headers = [("x-prefiller-host-port", hosts)];
    for _ in 0..3 {
        let asked = request("/v1/chat/completions", &headers, r#"{"messages":[]}"#);
        assert_eq!(send(sidecar.addresses[0], asked).await.0, 200);
    }
    assert_eq!((one.got().len(), two.got().len(), decode.got().len()), (3, 0, 3));
}

#[tokio::test]
async fn a_request_that_was_meant_for_another_pod_is_not_paired() {
    let prefill = Engine::saying(200, PREFILLED).await;
    let decode = Engine::saying(200, DECODED).await;
    let pod = |name: &str| (name == "POD_IP").then(|| "10.0.0.7".to_owned());
    let sidecar = Sidecar::start_with(pod, "", &[decode.address]).await;
    let body = r#"{"prompt":"p","max_tokens":5}"#;
    let paired = [
        (Some("10.0.0.7:8000"), true),
        // A second choice, after a retry.
        (Some("10.0.0.6:8000,10.0.0.7:8000"), true),
        (Some("10.0.0.6:8000"), false),
        // No picker: the client itself asked for a pair.
        (None, true),
        (Some("engine.example:8000"), true),
    ];
    let mut legs = 0;
    for (destination, is_paired) in paired {
        let mut headers = vec![("x-prefiller-host-port", prefill.address.to_string())];
        headers.extend(destination.map(|to| ("x-gateway-destination-endpoint", to.to_owned())));
        let (status, ..) = send(sidecar.addresses[0], request("/v1/completions", &headers, body)).await;
        assert_eq!(status, 200);
        legs += usize::from(is_paired);
        assert_eq!(prefill.got().len(), legs, "{destination:?}");
        let main = decode.got().pop().expect("decoded");
        assert_eq!(main.body != body, is_paired, "{destination:?}");
        assert_eq!(main.header("x-prefiller-host-port"), None);
    }
    assert!(sidecar.counts("llm_d_disagg_sidecar_prefills_total{where=\"local\"} 1"));
}
