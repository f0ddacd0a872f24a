//! `--proxy-access-log`: lines of the whole role.

use crate::engine::{Engine, Script};
use crate::role::{PORTS, Role, proxy_port, refused, until_async};

use super::rig::{post, send_to, text};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"canary-prompt"}]}"#;

#[tokio::test]
async fn a_request_is_one_line_of_json_without_its_secrets() {
    let engine = Engine::start(Script::Json).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("access.log");
    let role = Role::start(format!(
        "{PORTS} --endpoints={} --proxy-port={} --proxy-bind-address=127.0.0.1 --drain-timeout=0s \
         --proxy-access-log=json --proxy-access-log-file={}",
        engine.address,
        proxy_port(),
        file.display()
    ))
    .await;
    let secrets = [
        ("authorization", "Bearer canary-key"),
        ("cookie", "canary-cookie"),
    ];
    let request = post("/v1/chat/completions?token=canary-query", &secrets, CHAT);
    let answer = send_to(role.addresses.proxy.expect("a proxy"), request).await;
    assert_eq!(answer.status(), 200);
    let body = text(answer).await;
    let line = until_async(async || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.ends_with('\n').then_some(text)
    })
    .await;
    assert!(!line.contains("canary"), "{line}");
    let line: serde_json::Value = serde_json::from_str(&line).expect("one object");
    assert_eq!(
        (&line["path"], &line["status"], &line["endpoint"], &line["ended"]),
        (
            &"/v1/chat/completions".into(),
            &200.into(),
            &engine.address.to_string().into(),
            &"complete".into()
        )
    );
    assert_eq!(line["bytes"], body.len());
    assert_eq!(
        line["request_id"].as_str(),
        engine.received()[0].header("x-request-id")
    );
    // Rotated, the log goes on in a new file.
    let old = directory.path().join("access.log.1");
    std::fs::rename(&file, &old).expect("renames");
    let request = post("/v1/chat/completions", &[], CHAT);
    text(send_to(role.addresses.proxy.expect("a proxy"), request).await).await;
    let lines = until_async(async || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.ends_with('\n').then(|| text.lines().count())
    })
    .await;
    assert_eq!(lines, 1);
    assert_eq!(
        std::fs::read_to_string(&old)
            .expect("the old log")
            .lines()
            .count(),
        1
    );
    let page = role.get("/metrics").await;
    assert!(page.contains("llmd_proxy_access_log_dropped_total 0"), "{page}");
    role.shutdown.cancel();
    role.running.await.expect("joins").expect("in order");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let port = proxy_port();
    let flags = format!(
        "{PORTS} --endpoints=127.0.0.1:1 --proxy-port={port} --proxy-access-log=text --proxy-access-log-file=/does/not/exist"
    );
    let error = refused(&flags).await;
    assert!(error.starts_with("--proxy-access-log-file: "), "{error}");
}
