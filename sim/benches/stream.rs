//! CPU time of streaming: 200 open streams of one token every 20 ms, 10,000 chunks/s, over loopback.
//!
//! `cargo bench -p llmd-sim --bench stream`. Client and server run in this process on threads of their own;
//! the figure is the server threads' CPU time from `/proc/self/task`, so Linux only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use llmd_sim::{SimArgs, Simulator};

const STREAMS: usize = 200;
const INTERVAL: Duration = Duration::from_millis(20);
const TOKENS: usize = 400;
/// Budget: a fraction of a core.
const CORES: f64 = 0.5;
/// Clock ticks per second of `/proc` (`USER_HZ`), 100 on all Linux ports in use.
const TICKS: f64 = 100.0;

/// CPU seconds of the threads whose name starts with `prefix`.
fn cpu_seconds(prefix: &str) -> f64 {
    let mut ticks = 0.0;
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if name
            .split_once('(')
            .is_some_and(|(_, name)| name.starts_with(prefix))
        {
            // User and system time are the 14th and 15th fields, the 12th and 13th after the name.
            ticks += rest
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<f64>().ok())
                .sum::<f64>();
        }
    }
    ticks / TICKS
}

/// Streams one completion and counts its events.
fn stream(address: SocketAddr) -> std::io::Result<usize> {
    let body =
        format!(r#"{{"model":"m","prompt":"a","max_tokens":{TOKENS},"ignore_eos":true,"stream":true}}"#);
    let mut socket = TcpStream::connect(address)?;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer.windows(6).filter(|window| window == b"data: ").count())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("server")
        .enable_all()
        .build()?;
    let mut args = SimArgs::for_model("m");
    args.time_to_first_token = Some(INTERVAL);
    args.inter_token_latency = Some(INTERVAL);
    let simulator = server.block_on(async { Simulator::start(args.config()?).await })?;
    let address = simulator.address();

    let (start, before) = (Instant::now(), cpu_seconds("server"));
    let clients: Vec<_> = (0..STREAMS)
        .map(|index| {
            std::thread::Builder::new()
                .name(format!("client{index}"))
                .stack_size(256 << 10)
                .spawn(move || stream(address))
        })
        .collect::<Result<_, _>>()?;
    let mut chunks = 0;
    for client in clients {
        chunks += client.join().map_err(|_| "a client panicked")??;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds("server") - before);
    let fields = serde_json::json!({
        "name": "simulator: 10,000 streamed chunks/s",
        "value": cpu / wall,
        "unit": "core",
        "budget": CORES,
        "note": format!(
            "{:.0} chunks/s, {:.1} µs of CPU each",
            chunks as f64 / wall,
            cpu / chunks as f64 * 1e6
        ),
    });
    writeln!(std::io::stdout(), "figure: {fields}")?;
    Ok(())
}
