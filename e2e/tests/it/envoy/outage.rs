//! The picker is killed under load: requests get an answer, and Envoy goes on when it is back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llmd_e2e::echo::Echo;
use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::poll::DEADLINE;
use llmd_e2e::{http, poll_until_async};
use nix::sys::signal::Signal;

use super::{CHAT, chat, short_answer};

/// Clients that ask in a loop.
pub(super) const CLIENTS: usize = 8;
/// Pause of a client between an answer and its next question.
const PACE: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Seen {
    pub(super) good: AtomicU64,
    pub(super) bad: AtomicU64,
    broken: AtomicU64,
    /// What the last bad answer said.
    words: Mutex<String>,
}

pub(super) struct Load {
    pub(super) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(envoy: &Envoy) -> Self {
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let address = envoy.address;
        let task = |client: usize| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let counter =
                        match http::post(address, CHAT, chat(&format!("client {client}")), &[]).await {
                            Ok(answer) if answer.status == 200 => &seen.good,
                            Ok(answer) => {
                                let words = format!("{} {}", answer.status, answer.text());
                                *seen.words.lock().unwrap() = words;
                                &seen.bad
                            }
                            Err(_) => &seen.broken,
                        };
                    counter.fetch_add(1, Ordering::Relaxed);
                    // Errors come at once: without a pace they would use up the machine's ports.
                    tokio::time::sleep(PACE).await;
                }
            })
        };
        let tasks = (0..CLIENTS).map(task).collect();
        Self { seen, stop, tasks }
    }

    /// Waits for as many further answers of a kind as there are clients.
    pub(super) async fn wait_for_more(&self, what: &str, count: impl Fn(&Seen) -> &AtomicU64) {
        let before = count(&self.seen).load(Ordering::Relaxed);
        poll_until_async(what, DEADLINE, || async {
            (count(&self.seen).load(Ordering::Relaxed) >= before + CLIENTS as u64).then_some(())
        })
        .await;
    }

    /// No request was answered with an error so far.
    #[track_caller]
    pub(super) fn assert_good(&self) {
        let failed = self.seen.bad.load(Ordering::Relaxed) + self.seen.broken.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "{}", self.seen.words.lock().unwrap());
    }

    /// Stops; every request must have had an answer.
    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            tokio::time::timeout(DEADLINE, task)
                .await
                .expect("no request hangs")
                .unwrap();
        }
        assert_eq!(self.seen.broken.load(Ordering::Relaxed), 0, "a connection broke");
    }
}

pub(super) fn kill(epp: &mut Epp) {
    epp.process.signal(Signal::SIGKILL);
    epp.process.wait(DEADLINE);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_a_dead_picker_means_errors_until_it_is_back() {
    let upstream = Echo::start(short_answer()).await;
    let mut epp = Epp::start(&[upstream.address], &epp::Options::default()).await;
    let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
    let load = Load::start(&envoy);
    load.wait_for_more("answers", |seen| &seen.good).await;
    kill(&mut epp);
    load.wait_for_more("errors while the picker is away", |seen| &seen.bad)
        .await;
    epp.restart().await;
    load.wait_for_more("answers again", |seen| &seen.good).await;
    load.end().await;
    epp.wait_for_in_flight(0).await;
}

/// Envoy fails open only while it has sent no body to the picker (envoyproxy/envoy #41276), so that a
/// request with a body gets a clean error, whole, and one without passes.
#[tokio::test(flavor = "multi_thread")]
async fn open_a_dead_picker_lets_requests_without_a_body_pass() {
    let upstream = Echo::start(short_answer()).await;
    let mut epp = Epp::start(&[upstream.address], &epp::Options::default()).await;
    let options = envoy::Options {
        fail_open: true,
        // Without the picker's header there must be another way to an engine.
        fixed_upstreams: vec![upstream.address],
        ..envoy::Options::default()
    };
    let envoy = Envoy::start(epp.ext_proc, &options).await;
    let load = Load::start(&envoy);
    load.wait_for_more("answers", |seen| &seen.good).await;
    kill(&mut epp);
    load.wait_for_more("errors while the picker is away", |seen| &seen.bad)
        .await;
    for _ in 0..CLIENTS {
        let answer = http::get(envoy.address, "/v1/models").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    epp.restart().await;
    load.wait_for_more("answers again", |seen| &seen.good).await;
    load.end().await;
    epp.wait_for_in_flight(0).await;
    while let Some(request) = upstream.take() {
        let is_whole = request.path == "/v1/models" || request.body.ends_with(b"}");
        assert!(is_whole, "half a request was forwarded: {request:?}");
    }
}
