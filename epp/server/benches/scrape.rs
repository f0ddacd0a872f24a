//! Cost of scraping a pool: 100 endpoints with 32 KB pages every 50 ms.
//!
//! Budget: 0.25 core with every scrape done. The servers run in a child process (this program with
//! an argument), so that the CPU time read here is the data layer's alone.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp::datalayer::{DataLayer, Options, Source};
use llmd_epp_api::{EndpointName, EndpointSpec, SlotTable};
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{CoreMetricsExtractor, Parameters};
use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use llmd_epp_core::plugins::datalayer::reader::PageReader;

const PAGE: &str = include_str!("../../core/testdata/vllm.prom");
const ENDPOINTS: usize = 100;
const TICK: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// Budgets: cores, and per cent of the scrapes (the two clocks may differ by a tick).
const CORES: f64 = 0.25;
const MISSED: f64 = 1.0;
const SERVE: &str = "serve";

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(SERVE) {
        return serve();
    }
    let mut servers = Command::new(std::env::current_exe()?)
        .arg(SERVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ports = String::new();
    BufReader::new(servers.stdout.take().expect("piped")).read_line(&mut ports)?;
    let ports: Vec<u16> = ports
        .split_whitespace()
        .map(|port| port.parse().expect("port"))
        .collect();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&ports));
    drop(servers.stdin.take());
    servers.wait()?;
    Ok(())
}

async fn measure(ports: &[u16]) {
    let extractor = CoreMetricsExtractor::new(&Parameters::default()).expect("built-in engines");
    let source = PolledSource::new(SOURCE, &serde_yaml::from_str("{}").expect("defaults")).expect("defaults");
    let options = Options {
        sources: vec![Source::new(source, vec![Arc::new(PageReader::Metrics(extractor))]).expect("no TLS")],
        refresh_interval: TICK,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: tokio::runtime::Handle::current(),
    };
    let layer = DataLayer::start(options, &prometheus::Registry::new()).expect("registers");
    layer.set_endpoints(
        ports
            .iter()
            .enumerate()
            .map(|(index, port)| spec(index, *port))
            .collect(),
    );
    tokio::time::sleep(WARM_UP).await;

    let (cpu, began) = (cpu_seconds(), Instant::now());
    let mut scrapes = 0;
    let mut seen = vec![None; ports.len()];
    while began.elapsed() < MEASURED {
        for (before, now) in seen.iter_mut().zip(&layer.snapshot().updated) {
            scrapes += usize::from(*before != *now);
            *before = *now;
        }
        tokio::time::sleep(TICK / 5).await;
    }
    let wall = began.elapsed().as_secs_f64();
    let cores = (cpu_seconds() - cpu) / wall;
    let wanted = wall / TICK.as_secs_f64() * ports.len() as f64;
    let page = PAGE.len();
    let errors: u64 = layer.status(Instant::now()).iter().map(|line| line.errors).sum();
    let name = format!("scraping {ENDPOINTS} endpoints of {page} B every {TICK:?}");
    let note = format!("{scrapes} scrapes of {wanted:.0}, {errors} errors");
    let missed = (1.0 - scrapes as f64 / wanted).max(0.0) * 100.0;
    for (name, value, unit, budget) in [
        (name.clone(), cores, "core", CORES),
        (format!("{name}: missed"), missed, "%", MISSED),
    ] {
        let fields =
            serde_json::json!({"name": name, "value": value, "unit": unit, "budget": budget, "note": note});
        println!("figure: {fields}");
    }
}

fn spec(index: usize, port: u16) -> EndpointSpec {
    let name = format!("e{index:03}");
    EndpointSpec {
        pod: name.as_str().into(),
        name: EndpointName::new("default", name),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
        rank: 0,
        reach: llmd_epp_api::Reach::default(),
        labels: std::collections::BTreeMap::new(),
    }
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let of_thread = |text: String| {
        text.split_whitespace()
            .next()
            .and_then(|ns| ns.parse::<f64>().ok())
    };
    let tasks = std::fs::read_dir("/proc/self/task").map(|tasks| {
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(of_thread)
            .sum::<f64>()
    });
    tasks.ok().or_else(|| stat.and_then(of_thread)).unwrap_or(0.0) / 1e9
}

/// One thread per port; ends when standard input does.
fn serve() -> std::io::Result<()> {
    let mut ports = Vec::new();
    for _ in 0..ENDPOINTS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        ports.push(listener.local_addr()?.port().to_string());
        std::thread::spawn(move || {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{PAGE}", PAGE.len());
            let mut request = [0; 4096];
            for mut stream in listener.incoming().flatten() {
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
    }
    println!("{}", ports.join(" "));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
