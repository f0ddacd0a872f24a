//! `llmd kv-events` beside a publisher that speaks as engines do.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use llmd_e2e::poll::{DEADLINE, free_port, poll_until_async};
use llmd_e2e::process::llmd_bin;
use rmpv::Value as Packed;
use serde_json::Value;
use zeromq::{PubSocket, Socket, SocketSend, ZmqMessage};

fn message(topic: &str, sequence: u64, events: Vec<Packed>) -> ZmqMessage {
    let batch = Packed::Array(vec![Packed::from(1.5), Packed::Array(events), Packed::from(0)]);
    let mut payload = Vec::new();
    rmpv::encode::write_value(&mut payload, &batch).unwrap();
    let mut message = ZmqMessage::from(topic);
    message.push_back(sequence.to_be_bytes().to_vec().into());
    message.push_back(payload.into());
    message
}

fn map(members: &[(&str, Packed)]) -> Packed {
    let members = members
        .iter()
        .map(|(name, value)| (Packed::from(*name), value.clone()));
    Packed::Map(members.collect())
}

/// An engine that describes itself as SGLang does, once.
async fn describing(events: u16) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = format!(
        r#"{{"kv_events":{{"publisher":"zmq","endpoint_host":"*","endpoint_port_base":{events},"topic":"","block_size":2,"dp_size":1}}}}"#
    );
    let app = axum::Router::new().route("/server_info", axum::routing::get(move || async move { body }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_engine_are_printed_as_lines() {
    let port = free_port();
    let mut publisher = PubSocket::new();
    publisher.bind(&format!("tcp://127.0.0.1:{port}")).await.unwrap();
    let engine = describing(port).await;
    let verb = Command::new(llmd_bin())
        .args([
            "kv-events",
            &format!("http://{engine}"),
            "--topic",
            "kv@",
            "--count",
            "3",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || verb.wait_with_output().unwrap());
    let stored = map(&[
        ("type", Packed::from("BlockStored")),
        ("block_hashes", Packed::Array(vec![Packed::from(-2)])),
        ("parent_block_hash", Packed::Nil),
        ("token_ids", Packed::Array(vec![Packed::from(1), Packed::from(2)])),
        ("block_size", Packed::from(2)),
        ("medium", Packed::from("GPU")),
    ]);
    let cleared = Packed::Array(vec![Packed::from("AllBlocksCleared")]);
    // Who comes late has missed something: published until the subscriber has what it waits for.
    let publisher = tokio::sync::Mutex::new((publisher, 0));
    poll_until_async("three lines", DEADLINE, || async {
        let (publisher, sequence) = &mut *publisher.lock().await;
        let other = message("other", *sequence, vec![cleared.clone()]);
        publisher.send(other).await.unwrap();
        let events = vec![stored.clone(), cleared.clone()];
        publisher
            .send(message("kv@pod@m", *sequence, events))
            .await
            .unwrap();
        *sequence += 2;
        ended.is_finished().then_some(())
    })
    .await;
    let output = ended.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let first = &lines[0];
    assert_eq!(
        (&first["type"], &first["topic"], &first["missed"]),
        (&"BlockStored".into(), &"kv@pod@m".into(), &0.into())
    );
    assert_eq!(first["block_hashes"][0], u64::MAX - 1);
    assert_eq!(
        (&first["medium"], &first["rank"], &first["at"]),
        (&"GPU".into(), &0.into(), &1.5.into())
    );
    assert_eq!(lines[1]["type"], "AllBlocksCleared");
    assert_eq!(lines[2]["missed"], 1, "each second number was left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_named() {
    let wrong = format!("tcp://127.0.0.1:{}", free_port());
    for (endpoint, code, said) in [
        (wrong.as_str(), 3, "127.0.0.1"),
        ("https://engine", 2, "neither tcp:// nor http://"),
    ] {
        let verb = Command::new(llmd_bin())
            .args(["kv-events", endpoint])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = tokio::task::spawn_blocking(move || verb.wait_with_output().unwrap());
        poll_until_async("the verb to end", 2 * DEADLINE, || async {
            ended.is_finished().then_some(())
        })
        .await;
        let output = ended.await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{endpoint}: {error}");
        assert!(error.contains(said), "{endpoint}: {error}");
    }
}
