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

/// Streams that the router has continued so far.
async fn continued(up: &Up) -> u64 {
    let port = up.router_flag("metrics-port").unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let page = llmd_e2e::http::get(address, "/metrics").await.unwrap().text();
    let line = "llmd_proxy_stream_continuations_total{result=\"continued\"} ";
    let count = page.lines().find_map(|metric| metric.strip_prefix(line));
    count.expect("the metric").parse().unwrap()
}

/// Streams that run while an engine is killed, compared with the same answers asked for in peace.
const STREAMS: &str = r#"
import concurrent.futures, pathlib, sys, threading, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
COUNT, TOKENS = 12, 150
options = dict(model="test/model", max_tokens=TOKENS, extra_body={"ignore_eos": True})
def ask(number, **more):
    return client.chat.completions.create(messages=[{"role": "user", "content": f"Story {number}"}], **options, **more)
with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
    expected = [answer.choices[0].message.content for answer in pool.map(ask, range(COUNT))]
started, problems = threading.Barrier(COUNT + 1), []
def stream(number):
    text, ids, usage, finish = "", set(), None, None
    try:
        for index, chunk in enumerate(ask(number, stream=True, stream_options={"include_usage": True})):
            if index == 5:
                started.wait(60)
            ids.add(chunk.id)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        if text != expected[number]:
            problems.append(f"{number}: {text!r} instead of {expected[number]!r}")
        if (len(ids), finish, usage.completion_tokens) != (1, "length", TOKENS):
            problems.append(f"{number}: {ids} {finish} {usage}")
    except Exception as error:
        problems.append(f"{number}: {error!r}")
threads = [threading.Thread(target=stream, args=[number]) for number in range(COUNT)]
for thread in threads: thread.start()
started.wait(60)
pathlib.Path(MARK).touch()
for thread in threads: thread.join()
print("\n".join(problems))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn streams_on_a_killed_engine_go_on_and_the_official_client_sees_no_error() {
    let up = Up::file(&deployment(
        2,
        &[("inter-token-latency", "10ms"), ("time-to-first-token", "20ms")],
    ));
    let engines = ["test-decode-0", "test-decode-1"];
    let marks = tempfile::tempdir().unwrap();
    for (round, killed) in engines.iter().enumerate() {
        let before = continued(&up).await;
        let mark = marks.path().join(round.to_string());
        let script = format!("MARK = {mark:?}\n{STREAMS}");
        tokio::task::block_in_place(|| {
            up.wait_for_engines(&engines);
            std::thread::scope(|scope| {
                let client = scope.spawn(|| llmd_e2e::tools::python(&script, &up.url));
                poll_until("running streams", DEADLINE, || mark.exists().then_some(()));
                kill_now(up.pid_of(killed));
                assert_eq!(client.join().unwrap().trim(), "");
            });
            poll_until("the restart", DEADLINE, || {
                (up.rows().get(*killed)?["restarts"] == 1).then_some(())
            });
        });
        assert!(continued(&up).await > before, "a stream moved");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_no_other_engine_can_continue_ends_with_one_error_event() {
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
