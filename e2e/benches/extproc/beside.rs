//! Our picker and another one that takes upstream's flags, side by side: equal Envoys, the same engines,
//! configuration and load in one run. CPU and memory are those of the picker's process.
//!
//! Only one picker runs at a time; the others are stopped (`SIGSTOP`), for scraping never rests. What it
//! costs has a row of its own and is taken out of the rows per request.

mod rate;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use llmd_e2e::bench::{added, load, median, start_engines};
use llmd_e2e::epp::{self, Epp};
use serde_json::{Value, json};

use super::hundred::{self, Hundred};
use super::{KB, LATENCY_ROUNDS, PACE, PACED_FOR, RESOLUTION, ROUNDS, floor};
use subject::{Subject, Work};

/// Environment variable with the path of the other picker.
pub(super) const PICKER: &str = "LLMD_BENCH_BESIDE";

/// Names of what is measured per request or chunk, their units and how many of these a second has.
const UNITS: [(&str, &str, f64); 4] = [
    ("CPU per 1 KB request", "µs", 1e6),
    ("CPU per 220 KB request", "ms", 1e3),
    ("CPU per 450 KB request", "ms", 1e3),
    ("CPU per 100k paced response chunks", "s", 1e5),
];

/// Runs everything and prints one line that `cargo xtask bench --beside` reads.
pub(super) async fn measure(picker: PathBuf) {
    let before = load_average();
    let pickers = [None, Some(picker)].map(options);
    let (commit, mut rows) = eight(&pickers).await;
    rows.extend(hundred_rows(&pickers).await);
    let page = json!({"commit": commit, "load": [before, load_average()], "rows": rows});
    println!("beside: {page}");
}

/// Flags as upstream's charts have them; what is left out is the default of both. Upstream wants the name of
/// a pool, though the endpoints come from a file.
fn options(program: Option<PathBuf>) -> epp::Options {
    let mut flags = vec!["--tracing=false", "--zap-encoder=json", "--pool-name=beside"];
    if program.is_none() {
        // As often as upstream.
        flags.push("--adaptive-scraping=false");
    }
    epp::Options {
        flags: flags.into_iter().map(str::to_owned).collect(),
        program,
        ..epp::Options::default()
    }
}

/// Rows of the pool of eight: what requests and chunks cost and how long they take.
async fn eight(pickers: &[epp::Options; 2]) -> (Option<String>, Vec<Value>) {
    let (_engines, addresses) = start_engines(super::ENGINES);
    let (floor, floor_address) = floor(&addresses);
    let ours = Epp::start(&addresses, &pickers[0]).await;
    let theirs = Epp::start(&addresses, &pickers[1]).await;
    let commit = theirs.commit().await;
    let none = Subject::without(&addresses).await;
    let mut subjects = [
        Subject::new(floor_address, &floor).await,
        Subject::new(ours.ext_proc, &ours.process).await,
        Subject::new(theirs.ext_proc, &theirs.process).await,
    ];
    let work = Work {
        bodies: [
            load::prompts(512, KB),
            load::prompts(64, 220 * KB),
            load::prompts(32, 450 * KB),
        ],
    };
    for subject in &mut subjects {
        subject.alone(Subject::learn_idle).await;
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.alone(async |subject| subject.round(&work).await).await;
        }
    }
    let mut without = [Vec::new(), Vec::new()];
    let mut with = [(); 3].map(|()| [Vec::new(), Vec::new()]);
    for _ in 0..LATENCY_ROUNDS {
        note(&mut without, none.latency(&work).await);
        for (subject, latencies) in subjects.iter_mut().zip(&mut with) {
            let latency = subject.alone(async |subject| subject.latency(&work).await);
            note(latencies, latency.await);
        }
    }
    let mut rows: Vec<Value> = UNITS
        .iter()
        .enumerate()
        .map(|(index, (name, unit, scale))| {
            let how = format!("{}; median of {ROUNDS}", subject::LOAD[index]);
            let values = subjects
                .each_ref()
                .map(|subject| median(&subject.cpu[index]) * scale);
            row(name, unit, &values, &how)
        })
        .collect();
    for (index, name) in ["added P50", "added P99"].into_iter().enumerate() {
        let values = with
            .each_ref()
            .map(|with| added(&with[index], &without[index]).max(RESOLUTION));
        let how = format!(
            "1 KB, {PACE} requests/s for {} s, over {:.2} ms without ext-proc; median of {LATENCY_ROUNDS}",
            PACED_FOR.as_secs(),
            median(&without[index])
        );
        rows.push(row(name, "ms", &values, &how));
    }
    rows.push(rate::row(&none, &mut subjects, &work).await);
    (commit, rows)
}

/// Rows of the pool of a hundred: what it costs to have it.
async fn hundred_rows(pickers: &[epp::Options; 2]) -> Vec<Value> {
    let (_engines, addresses) = start_engines(hundred::ENGINES);
    let (mut idle, mut memory, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for picker in pickers {
        let hundred = Hundred::start(&addresses, picker).await;
        idle.push(hundred.idle().await);
        memory.push(hundred.memory().await);
        starts.push(median(&hundred.starts().await) * 1e3);
    }
    let column = |pairs: &[[f64; 2]], index: usize| [pairs[0][index], pairs[1][index]];
    let rss = column(&memory, 0);
    // On a machine that is short of time a picker may scrape less than it should, and need less.
    let per_scrape = |[cores, scrapes]: [f64; 2]| cores / scrapes * 1e6;
    vec![
        row(
            "CPU per 1000 scrapes of 32 KB pages",
            "ms",
            &[per_scrape(idle[0]), per_scrape(idle[1])],
            &format!(
                "100 idle endpoints every 50 ms; llmd {:.2} cores for {:.0}/s, upstream {:.2} cores for {:.0}/s",
                idle[0][0], idle[0][1], idle[1][0], idle[1][1]
            ),
        ),
        row(
            "memory after 10,000 distinct prompts of 16 KB",
            "MiB",
            &column(&memory, 1),
            &format!(
                "VmRSS {} s after the last one; before: llmd {:.1} MiB, upstream {:.1} MiB",
                hundred::SETTLE.as_secs(),
                rss[0],
                rss[1]
            ),
        ),
        row(
            "start to the first good answer, 100 endpoints",
            "ms",
            &starts,
            &format!("through an Envoy that runs; median of {}", hundred::STARTS),
        ),
    ]
}

fn note(samples: &mut [Vec<f64>; 2], values: [f64; 2]) {
    for (samples, value) in samples.iter_mut().zip(values) {
        samples.push(value);
    }
}

/// A row: the floor (where it takes part), ours and theirs, and how many times less ours is.
fn row(name: &str, unit: &str, values: &[f64], how: &str) -> Value {
    let cells = values.iter().map(|value| format!("{} {unit}", short(*value)));
    let [.., ours, theirs] = values else {
        unreachable!("two pickers at least")
    };
    line(name, cells.collect(), &times(theirs / ours), how)
}

/// A row of cells that are written already; the first is the floor's, where there are three.
fn line(name: &str, mut cells: Vec<String>, ratio: &str, how: &str) -> Value {
    let [theirs, ours] = [cells.pop(), cells.pop()];
    json!({
        "name": name, "floor": cells.pop(), "ours": ours, "theirs": theirs,
        "ratio": ratio, "how": how,
    })
}

fn times(ratio: f64) -> String {
    format!("{} ×", short(ratio))
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// Processes that want to run, over the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or(0.0)
}

/// Lets some time pass that is measured.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
