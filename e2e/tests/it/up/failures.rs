//! Engines that die under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use llmd_e2e::poll_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{DEADLINE, Up, body, chat, deployment};

fn kill_now(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_under_load_costs_no_client_an_error_and_comes_back() {
    let up = Up::file(&deployment(
        2,
        &[("inter-token-latency", "5ms"), ("time-to-first-token", "20ms")],
    ));
    up.wait_for_engines(&["test-decode-0", "test-decode-1"]);
    let address = up.address;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..8).map(|client| {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        tokio::spawn(async move {
            let mut failures = Vec::new();
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                match chat(address, "test/model", &format!("client {client} turn {turn}"), 16).await {
                    Ok(answer) if answer.status == 200 => {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        })
    });
    let clients: Vec<_> = clients.collect();
    let reached = |count| {
        poll_until("requests", DEADLINE, || {
            (served.load(Ordering::Relaxed) >= count).then_some(())
        });
    };
    tokio::task::block_in_place(|| {
        reached(40);
        kill_now(up.pid_of("test-decode-0"));
        reached(served.load(Ordering::Relaxed) + 80);
        poll_until("the restart", DEADLINE, || {
            let rows = up.rows();
            let row = rows.get("test-decode-0")?;
            (row["restarts"] == 1 && row["state"] == "ready").then_some(())
        });
        reached(served.load(Ordering::Relaxed) + 40);
    });
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<String> = join_all(clients)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_a_killed_engine_ends_with_one_error_event() {
    let up = Up::file(&deployment(1, &[("inter-token-latency", "20ms")]));
    let request = hyper::Request::post("/v1/chat/completions")
        .header("host", "llmd.test")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(
            body("test/model", "a long story", 2000, true).into(),
        ))
        .unwrap();
    let answer = llmd_e2e::http::open(up.address, request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut stream = answer.into_body();
    let mut text = String::new();
    let mut killed = false;
    while let Some(frame) = http_body_util::BodyExt::frame(&mut stream).await {
        let frame = frame.expect("the broken stream ends as a complete answer");
        text.push_str(&String::from_utf8_lossy(
            frame.data_ref().unwrap_or(&bytes::Bytes::new()),
        ));
        if !killed && text.matches("data:").count() > 5 {
            killed = true;
            kill_now(up.pid_of("test-decode-0"));
        }
    }
    let events: Vec<&str> = text.lines().filter(|line| line.starts_with("data:")).collect();
    let errors: Vec<&&str> = events
        .iter()
        .filter(|event| event.contains("\"error\""))
        .collect();
    assert_eq!(errors.len(), 1, "{events:?}");
    assert!(
        events.last().unwrap().contains("\"error\""),
        "nothing follows the error: {events:?}"
    );
}
