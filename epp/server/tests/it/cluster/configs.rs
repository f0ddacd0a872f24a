//! The configurations of llm-d's guides and of upstream's samples start unchanged and pick as the sheets say.
//!
//! Files and expectations are data: `configs/cases.yaml` tells its own format.

#![allow(clippy::panic, reason = "a failed expectation of a test")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use llmd_epp_core::config::{BuildEnv, EndpointPickerConfig, assemble};
use serde::Deserialize;
use serde_json::json;

use super::rig::{BARE, PORT, Site};
use crate::metrics_server::{Manner, MetricsServer, vllm_page};
use crate::picker::{Call, response_body, response_head};
use crate::role::{PORTS, Role};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cluster/configs");
/// Second port of the pool `ranks`.
const SECOND_PORT: u16 = 8001;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: String,
    sheet: String,
    #[serde(default = "aggregated")]
    pool: String,
    #[serde(default)]
    flags: String,
    refused: Option<String>,
    #[serde(default)]
    steps: Vec<Step>,
}

fn aggregated() -> String {
    "aggregated".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    prompt: String,
    #[serde(default)]
    image: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    prefiller: Vec<String>,
    #[serde(default)]
    encoder: Vec<String>,
    #[serde(default)]
    rank: Vec<u16>,
    #[serde(default, rename = "as")]
    remembered_as: Option<String>,
    #[serde(default)]
    same: Option<String>,
    #[serde(default)]
    other: Option<String>,
    #[serde(default)]
    held: bool,
}

impl Case {
    fn file(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.yaml", self.config))
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(Path::new(DIRECTORY).join("cases.yaml")).expect("cases");
    serde_yaml::from_str(&text).expect("cases")
}

#[test]
fn every_file_has_its_case() {
    let mut listed: Vec<String> = cases()
        .iter()
        .map(|case| format!("{}.yaml", case.config))
        .chain(["cases.yaml".to_owned()])
        .collect();
    listed.sort();
    let files = std::fs::read_dir(DIRECTORY).expect("a directory");
    let mut files: Vec<String> = files
        .map(|file| file.expect("a file").file_name().into_string().expect("text"))
        .collect();
    files.sort();
    assert_eq!(files, listed);
    for case in cases() {
        assert!(!case.sheet.is_empty(), "{} cites no row", case.config);
        assert!(
            case.refused.is_some() || !case.steps.is_empty(),
            "{} picks nothing",
            case.config
        );
    }
}

#[test]
fn upstream_would_take_each_of_them() {
    for case in cases() {
        let text = std::fs::read_to_string(case.file()).expect("a configuration");
        let config = EndpointPickerConfig::decode(&text).expect(&case.config).config;
        assert_eq!(config.foreign_keys(), [""; 0], "{}", case.config);
    }
}

#[tokio::test]
async fn what_names_an_engine_that_is_not_built_yet_is_refused_by_name() {
    let mut listed = Vec::new();
    for case in cases() {
        let Some(words) = &case.refused else { continue };
        let text = std::fs::read_to_string(case.file()).expect("a configuration");
        let config = EndpointPickerConfig::decode(&text).expect(&case.config).config;
        let env = BuildEnv {
            allow_experimental: true,
            ..BuildEnv::detached()
        };
        assert!(
            assemble(&config, env).is_err(),
            "{} is supported now: give it steps and take `refused` away",
            case.config
        );
        let flags = format!(
            "{PORTS} --config-file={} --endpoint-selector=app=a --endpoint-target-ports=8000 {}",
            case.file().display(),
            case.flags
        );
        // Before anything is asked of a cluster.
        let error = crate::role::refused(&flags).await;
        assert!(error.contains(words), "{}: {error}", case.config);
        listed.push(format!("{}: {error}", case.config));
    }
    println!("refused:\n  {}", listed.join("\n  "));
}

#[tokio::test]
async fn the_others_start_unchanged_and_pick_as_the_tables_say() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let mut pools = BTreeMap::new();
    for case in cases() {
        if case.refused.is_some() {
            continue;
        }
        if !pools.contains_key(&case.pool) {
            pools.insert(case.pool.clone(), Pool::start(&site, &case.pool).await);
        }
        let pool = &pools[&case.pool];
        let picker = site
            .picker(&format!(
                "--config-file={} --endpoint-selector=app={} --endpoint-target-ports={} --metrics-endpoint-auth=false \
                 --refresh-prometheus-metrics-interval=20ms --metrics-staleness-threshold=1h {}",
                case.file().display(),
                case.pool,
                pool.ports(),
                case.flags
            ))
            .await;
        let ready = format!("llm_d_epp_ready_endpoints{{name=\"epp\"}} {}", pool.servers.len());
        picker.wait_for_metric(&ready).await;
        pool.run(&case, &picker).await;
        picker.shutdown.cancel();
        picker.running.await.expect("joins").expect("in order");
    }
}

/// Pods with their engines' metrics.
struct Pool {
    addresses: BTreeMap<String, Ipv4Addr>,
    servers: Vec<MetricsServer>,
    is_ranked: bool,
}

impl Pool {
    async fn start(site: &Site, name: &str) -> Self {
        let (busy, idle) = (vllm_page(10, 20, 0.9), vllm_page(0, 0, 0.1));
        let trtllm = |waiting: u32, kv: f64| {
            // A value without its type is none.
            let gauge =
                |name: &str, value: f64| format!("# TYPE trtllm_{name} gauge\ntrtllm_{name} {value}\n");
            [
                gauge("num_requests_waiting", f64::from(waiting)),
                gauge("num_requests_running", 0.0),
                gauge("kv_cache_utilization", kv),
                gauge("kv_cache_tokens_per_block", 32.0),
                gauge("kv_cache_max_blocks", 1000.0),
            ]
            .concat()
        };
        let pods = match name {
            "aggregated" | "ranks" => vec![("busy", "", busy), ("idle", "", idle)],
            "trtllm" => vec![("busy", "", trtllm(10, 0.9)), ("idle", "", trtllm(0, 0.1))],
            "disaggregated" => vec![
                ("prefill-busy", "prefill", busy),
                ("prefill-idle", "prefill", idle.clone()),
                ("decode-0", "decode", idle.clone()),
                ("decode-1", "decode", idle.clone()),
                ("encode-0", "encode", idle),
            ],
            other => panic!("no such pool: {other}"),
        };
        let mut pool = Self {
            addresses: BTreeMap::new(),
            servers: Vec::new(),
            is_ranked: name == "ranks",
        };
        for (pod, role, page) in pods {
            let object = format!("{name}-{pod}");
            let address = site.pod(&object, name).await;
            if !role.is_empty() {
                let labels = json!({"metadata": {"labels": {"llm-d.ai/role": role}}});
                site.patch_pod(&object, &labels, false).await;
            }
            let ports: &[u16] = if pool.is_ranked {
                &[PORT, SECOND_PORT]
            } else {
                &[PORT]
            };
            for port in ports {
                let at = (address, *port).into();
                pool.servers
                    .push(MetricsServer::start_at(at, Manner::Proper, page.clone()).await);
            }
            site.status(&object, address, true).await;
            pool.addresses.insert(pod.to_owned(), address);
        }
        pool
    }

    fn ports(&self) -> String {
        if self.is_ranked {
            return format!("{PORT},{SECOND_PORT}");
        }
        PORT.to_string()
    }

    async fn run(&self, case: &Case, picker: &Role) {
        let channel = Role::channel(picker.addresses.grpc.port()).await;
        let mut remembered: BTreeMap<&str, String> = BTreeMap::new();
        let mut held = Vec::new();
        for (index, step) in case.steps.iter().enumerate() {
            let at = format!("{} ({}), step {index}", case.config, case.sheet);
            let mut call = Call::open(channel.clone()).await;
            let headers: Vec<(&str, &str)> = step
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            call.request(&headers, &[body(step).as_bytes()]).await;
            let forwarded = call.forwarded().await;
            let destination = forwarded.set("x-gateway-destination-endpoint").expect(&at);
            let target = |pod: &String| format!("{}:{PORT}", self.addresses[pod]);
            let allowed = |pods: &[String]| pods.iter().map(target).collect::<Vec<_>>();
            if !step.to.is_empty() {
                assert!(allowed(&step.to).contains(&destination), "{at}: {destination}");
            }
            for (header, pods) in [
                ("x-prefiller-host-port", &step.prefiller),
                ("x-encoder-hosts-ports", &step.encoder),
            ] {
                match forwarded.set(header) {
                    Some(value) => assert!(allowed(pods).contains(&value), "{at}: {header}: {value}"),
                    None => assert!(pods.is_empty(), "{at}: no {header}"),
                }
            }
            if !step.rank.is_empty() {
                let rank = forwarded.set("x-data-parallel-host-port").expect(&at);
                let host = destination.split(':').next().expect("an address");
                let ranks = step.rank.iter().map(|port| format!("{host}:{port}"));
                assert!(ranks.into_iter().any(|allowed| allowed == rank), "{at}: {rank}");
            }
            if let Some(same) = &step.same {
                assert_eq!(destination, remembered[same.as_str()], "{at}");
            }
            if let Some(other) = &step.other {
                assert_ne!(destination, remembered[other.as_str()], "{at}");
            }
            if let Some(name) = &step.remembered_as {
                remembered.insert(name, destination);
            }
            if step.held {
                held.push(call);
            } else {
                answer(&mut call).await;
            }
        }
    }
}

/// A chat request of some blocks.
fn body(step: &Step) -> String {
    let text = format!("{} is the subject of these words. ", step.prompt).repeat(60);
    let mut content = vec![json!({"type": "text", "text": text})];
    if step.image {
        let url = "data:image/png;base64,aW1hZ2U=";
        content.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    json!({"model": "m", "messages": [{"role": "user", "content": content}]}).to_string()
}

async fn answer(call: &mut Call) {
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
