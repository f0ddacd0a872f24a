//! Another configuration while the picker works: a mounted `ConfigMap` that is swapped, a file that is edited.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::engine::{Engine, Script};
use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{CHAT, Call, PATIENCE, response_body, response_head};
use crate::proxy::rig::{post, send_to, text};
use crate::role::{PORTS, Role, proxy_port, until_async};

const PLUGINS: &str = "\
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
";
const EVENTS: usize = 3;

/// A directory as the kubelet mounts a `ConfigMap`: files are links through `..data`, which is swapped.
struct ConfigMap {
    directory: tempfile::TempDir,
    revision: usize,
}

impl ConfigMap {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = Self {
            directory,
            revision: 0,
        };
        map.swap(config);
        symlink("..data/config.yaml", map.file()).expect("linked");
        map
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    fn swap(&mut self, config: &str) {
        self.revision += 1;
        let root = self.directory.path();
        let name = format!("..revision_{}", self.revision);
        std::fs::create_dir(root.join(&name)).expect("made");
        std::fs::write(root.join(&name).join("config.yaml"), config).expect("written");
        symlink(&name, root.join("..data_tmp")).expect("linked");
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swapped");
        if self.revision > 1 {
            let old = root.join(format!("..revision_{}", self.revision - 1));
            std::fs::remove_dir_all(old).expect("removed");
        }
    }
}

/// A configuration with `plugins` as one profile and a file of endpoints.
fn config(plugins: &str, endpoints: &Path, weights: [u32; 3]) -> String {
    let [queue, cache, prefix] = weights;
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
{plugins}- type: file-discovery
  parameters: {{path: {}, watchFile: true}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: {queue}}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: {cache}}}
  - {{pluginRef: prefix-cache-scorer, weight: {prefix}}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
",
        endpoints.display()
    )
}

fn list(directory: &Path, engines: &[SocketAddr]) -> PathBuf {
    let path = directory.join("endpoints.yaml");
    let entries = engines.iter().enumerate().map(|(index, engine)| {
        let (address, port) = (engine.ip(), engine.port());
        format!("- {{name: engine-{index}, address: {address}, port: '{port}'}}\n")
    });
    std::fs::write(&path, format!("endpoints:\n{}", entries.collect::<String>())).expect("written");
    path
}

async fn shows(role: &Role, line: &str) {
    until_async(async || {
        let page = role.get("/metrics").await;
        page.lines().any(|found| found == line).then_some(())
    })
    .await;
}

fn chat(prompt: &str, stream: bool) -> String {
    serde_json::json!({
        "model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}]
    })
    .to_string()
}

/// Requests through both doors until `stop`; whoever fails fails the test.
struct Load {
    workers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Load {
    async fn start(role: &Role) -> Self {
        let mut load = Self {
            workers: JoinSet::new(),
            stop: Arc::default(),
            done: Arc::default(),
        };
        let proxy = role.addresses.proxy.expect("a proxy");
        for worker in 0..4 {
            let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
            load.workers.spawn(async move {
                for number in 0.. {
                    // Few different ones: the engines tell of 100 blocks, which is all the index keeps.
                    let body = chat(&format!("{worker} {}", number % 8), false);
                    let answer = send_to(proxy, post("/v1/chat/completions", &[], &body)).await;
                    assert_eq!(answer.status(), 200);
                    assert!(text(answer).await.contains("\"model\":\"m\""));
                    done.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let channel = Role::channel(role.addresses.grpc.port()).await;
        let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
        load.workers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut call = Call::open(channel.clone()).await;
                call.request(&[], &[CHAT]).await;
                assert!(
                    call.forwarded()
                        .await
                        .set("x-gateway-destination-endpoint")
                        .is_some()
                );
                answer_through(&mut call).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        load
    }

    /// Waits for further requests: the current configuration has served some.
    async fn more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until_async(async || (self.done.load(Ordering::Relaxed) > before + 20).then_some(())).await;
    }

    async fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.expect("no request failed");
        }
        self.done.load(Ordering::Relaxed)
    }
}

async fn answer_through(call: &mut Call) {
    call.send(response_head(&[
        (":status", "200"),
        ("content-type", "application/json"),
    ]))
    .await;
    call.answer().await;
    call.send(response_body(
        br#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        true,
    ))
    .await;
    assert!(call.response_chunk().await.end_of_stream);
}

#[tokio::test]
async fn swaps_under_load_fail_no_request_drop_no_stream_and_forget_nothing() {
    let engines = [
        Engine::start(Script::AsAsked(EVENTS)).await,
        Engine::start(Script::AsAsked(EVENTS)).await,
        Engine::start(Script::AsAsked(EVENTS)).await,
    ];
    let elsewhere = tempfile::tempdir().expect("a directory");
    let endpoints = list(elsewhere.path(), &engines.each_ref().map(|engine| engine.address));
    let mut map = ConfigMap::new(&config(PLUGINS, &endpoints, [2, 2, 3]));
    let port = proxy_port();
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={} --proxy-port={port} --drain-timeout=0s",
        map.file().display()
    ))
    .await;
    let proxy = role.addresses.proxy.expect("a proxy");
    shows(&role, "llm_d_epp_config_generation 1").await;

    // Something to remember: a prefix, a stream through the proxy, a request held by Envoy.
    let ask = async |prompt: &str| {
        let before = engines.each_ref().map(|engine| engine.received().len());
        let answer = send_to(proxy, post("/v1/chat/completions", &[], &chat(prompt, false))).await;
        assert_eq!(answer.status(), 200);
        drop(text(answer).await);
        let served = |index: &usize| engines[*index].received().len() > before[*index];
        (0..engines.len()).find(served).expect("somebody served it")
    };
    let known = "a prompt of several blocks that stays the same ".repeat(40);
    let home = ask(&known).await;
    // The proxy holds the head back until the first event is there.
    engines.iter().for_each(Engine::release);
    let stream = send_to(proxy, post("/v1/chat/completions", &[], &chat("stream", true))).await;
    assert_eq!(stream.status(), 200);
    let channel = Role::channel(role.addresses.grpc.port()).await;
    let mut held = Call::open(channel).await;
    held.request(&[], &[CHAT]).await;
    held.forwarded().await;

    let load = Load::start(&role).await;
    load.more().await;
    let more_plugins = format!("- type: no-hit-lru-scorer\n- type: running-requests-size-scorer\n{PLUGINS}");
    for generation in 2..=6 {
        let next = if generation % 2 == 0 {
            config(&more_plugins, &endpoints, [1, 1, 3])
        } else {
            config(PLUGINS, &endpoints, [2, 2, 3])
        };
        map.swap(&next);
        shows(&role, &format!("llm_d_epp_config_generation {generation}")).await;
        load.more().await;
    }
    let refusals = [
        "kind: EndpointPickerConfig\nplugins: [".to_owned(),
        config("- type: no-such-scorer\n", &endpoints, [1, 1, 1]),
        // What is set up once.
        config(PLUGINS, &elsewhere.path().join("other.yaml"), [1, 1, 1]),
    ];
    for (index, refused) in refusals.iter().enumerate() {
        map.swap(refused);
        let count = index + 1;
        shows(
            &role,
            &format!("llm_d_epp_config_reload_total{{result=\"failure\"}} {count}"),
        )
        .await;
        shows(&role, "llm_d_epp_config_last_reload_successful 0").await;
        load.more().await;
    }
    shows(&role, "llm_d_epp_config_generation 6").await;
    map.swap(&config(PLUGINS, &endpoints, [1, 2, 3]));
    shows(&role, "llm_d_epp_config_generation 7").await;
    shows(&role, "llm_d_epp_config_reload_total{result=\"success\"} 6").await;
    shows(&role, "llm_d_epp_config_last_reload_successful 1").await;
    load.more().await;
    assert!(load.end().await > 200);

    assert_eq!(ask(&known).await, home, "the prefix is remembered");
    answer_through(&mut held).await;
    drop(held);
    for engine in &engines {
        (0..EVENTS).for_each(|_| engine.release());
    }
    let events = tokio::time::timeout(PATIENCE, stream.into_body().collect());
    let events = events.await.expect("in time").expect("a whole stream").to_bytes();
    let events = String::from_utf8_lossy(&events);
    assert_eq!(events.matches("\"n\":").count(), EVENTS, "{events}");
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    until_async(async || {
        let page = role.get("/debug/endpoints").await;
        (page.matches("\"inFlightRequests\":0").count() == 3).then_some(())
    })
    .await;
    role.running.abort();
}

#[tokio::test]
async fn an_edit_of_the_data_layer_is_followed_and_endpoints_keep_what_was_read() {
    let engine = MetricsServer::start(Manner::Proper, vllm_page(7, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let endpoints = list(directory.path(), &[engine.address]);
    let polled = config(PLUGINS, &endpoints, [2, 2, 3]);
    let unpolled = format!("{polled}  injectDefaults: false\n");
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, &unpolled).expect("written");
    let role = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={} --refresh-prometheus-metrics-interval=20ms --metrics-staleness-threshold=1h",
        file.display()
    ))
    .await;
    shows(&role, "llm_d_epp_ready_endpoints{name=\"epp\"} 0").await;
    std::fs::write(&file, &polled).expect("written");
    shows(&role, "llm_d_epp_average_queue_size{name=\"epp\"} 7").await;
    std::fs::write(&file, &unpolled).expect("written");
    shows(&role, "llm_d_epp_config_generation 3").await;
    shows(&role, "llm_d_epp_ready_endpoints{name=\"epp\"} 1").await;
    role.running.abort();
}

#[tokio::test]
async fn a_file_that_comes_back_is_no_reload_and_the_flag_switches_it_off() {
    let engine = MetricsServer::start(Manner::Proper, vllm_page(0, 0, 0.0)).await;
    let directory = tempfile::tempdir().expect("a directory");
    let endpoints = list(directory.path(), &[engine.address]);
    let file = directory.path().join("config.yaml");
    let first = config(PLUGINS, &endpoints, [2, 2, 3]);
    std::fs::write(&file, &first).expect("written");
    let followed = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={}",
        file.display()
    ))
    .await;
    let fixed = Role::start(format!(
        "{PORTS} --secure-serving=false --config-file={} --enable-config-reload=false",
        file.display()
    ))
    .await;
    std::fs::remove_file(&file).expect("removed");
    shows(&followed, "llm_d_epp_config_reload_total{result=\"failure\"} 1").await;
    // The same in other words.
    std::fs::write(&file, format!("# a comment\n{first}")).expect("written");
    shows(&followed, "llm_d_epp_config_last_reload_successful 1").await;
    shows(&followed, "llm_d_epp_config_reload_total{result=\"success\"} 0").await;
    std::fs::write(&file, config(PLUGINS, &endpoints, [1, 1, 1])).expect("written");
    shows(&followed, "llm_d_epp_config_generation 2").await;
    shows(&fixed, "llm_d_epp_config_generation 1").await;
    shows(&fixed, "llm_d_epp_config_reload_total{result=\"failure\"} 0").await;
    followed.running.abort();
    fixed.running.abort();
}
