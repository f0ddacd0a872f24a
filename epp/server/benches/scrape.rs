//! Cost of scraping a pool every 50 ms: 100 endpoints with 32 KB pages, and 500 with 4 KB.
//!
//! Budgets: 0.1 and 0.3 core with every scrape done. The servers run in a child process (this program with
//! an argument), so that the CPU time read here is the data layer's alone.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp::datalayer::{DataLayer, Options, ScrapeThreads, Source};
use llmd_epp_api::{EndpointName, EndpointSpec, SlotTable};
use llmd_epp_core::plugins::datalayer::core_metrics_extractor::{CoreMetricsExtractor, Parameters};
use llmd_epp_core::plugins::datalayer::metrics_data_source::SOURCE;
use llmd_epp_core::plugins::datalayer::polled::PolledSource;
use llmd_epp_core::plugins::datalayer::reader::PageReader;

const PAGE: &str = include_str!("../../core/testdata/vllm.prom");
/// Endpoints, most bytes of a page, and the budget in cores.
const POOLS: [(usize, usize, f64); 2] = [(100, usize::MAX, 0.1), (500, 4096, 0.3)];
/// What is read of a page.
const WANTED: [&str; 5] = [
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
];
const TICK: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// Per cent of the scrapes (the two clocks may differ by a tick).
const MISSED: f64 = 1.0;
const SERVE: &str = "serve";

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, endpoints, bytes] = &arguments[..]
        && role == SERVE
    {
        let number = |text: &String| text.parse().expect("a number");
        return serve(number(endpoints), &page(number(bytes)));
    }
    for (endpoints, bytes, cores) in POOLS {
        let mut servers = Command::new(std::env::current_exe()?)
            .args([SERVE, &endpoints.to_string(), &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ports = String::new();
        BufReader::new(servers.stdout.take().expect("piped")).read_line(&mut ports)?;
        let ports: Vec<u16> = ports
            .split_whitespace()
            .map(|port| port.parse().expect("port"))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let threads = ScrapeThreads::start()?;
        runtime.block_on(measure(&threads, &ports, page(bytes).len(), cores));
        drop(servers.stdin.take());
        servers.wait()?;
    }
    Ok(())
}

/// A page of at most so many bytes with all that is read.
fn page(most: usize) -> String {
    let is_wanted = |line: &&str| WANTED.iter().any(|name| line.contains(name));
    let mut page: String = PAGE
        .lines()
        .filter(is_wanted)
        .flat_map(|line| [line, "\n"])
        .collect();
    for line in PAGE.lines().filter(|line| !is_wanted(line)) {
        if page.len() + line.len() < most {
            page.extend([line, "\n"]);
        }
    }
    page
}

async fn measure(threads: &ScrapeThreads, ports: &[u16], page: usize, budget: f64) {
    let extractor = CoreMetricsExtractor::new(&Parameters::default()).expect("built-in engines");
    let source = PolledSource::new(SOURCE, &serde_yaml::from_str("{}").expect("defaults")).expect("defaults");
    let options = Options {
        sources: vec![Source::new(source, vec![Arc::new(PageReader::Metrics(extractor))]).expect("no TLS")],
        refresh_interval: TICK,
        adaptive: false,
        fresh_for: None,
        slots: Arc::new(SlotTable::default()),
        on_endpoints: Box::new(|_| {}),
        deprecated_metrics: false,
        runtime: threads.handle(),
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
    let errors: u64 = layer.status(Instant::now()).iter().map(|line| line.errors).sum();
    let name = format!("scraping {} endpoints of {page} B every {TICK:?}", ports.len());
    let note = format!("{scrapes} scrapes of {wanted:.0}, {errors} errors");
    let missed = (1.0 - scrapes as f64 / wanted).max(0.0) * 100.0;
    for (name, value, unit, budget) in [
        (name.clone(), cores, "core", budget),
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
fn serve(endpoints: usize, page: &str) -> std::io::Result<()> {
    let mut ports = Vec::new();
    for _ in 0..endpoints {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        ports.push(listener.local_addr()?.port().to_string());
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        std::thread::spawn(move || {
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
