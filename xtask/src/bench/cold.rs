//! From `git clone` to the first token, with nothing built before.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::report::Figure;
use crate::cargo::{command, metadata, run};

/// Goal on four cores.
const BUDGET: f64 = 300.0;

/// The service answers or the measurement fails.
const PATIENCE: Duration = Duration::from_secs(60);

const QUESTION: &str =
    r#"{"model":"llmd/simulated","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;

/// Clones the committed state into a new directory, builds it there and asks the service once.
/// The registry's downloads are counted only where the machine does not have them yet.
///
/// # Errors
/// When a step fails or no token comes.
pub(super) fn clone_to_first_token() -> anyhow::Result<Figure> {
    let directory = metadata()?.target_directory.join("cold");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let start = Instant::now();
    let mut clone = command("git");
    clone.args(["clone", "--quiet", "."]).arg(&directory);
    run(clone)?;
    let mut build = command("cargo");
    build
        .args(["build", "--quiet", "--release", "--locked"])
        .current_dir(&directory)
        .env("CARGO_TARGET_DIR", directory.join("target"));
    run(build)?;
    let built = start.elapsed();
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let up = up(&directory.join("target/release/llmd"), port)?;
    let started = Instant::now();
    first_token(port)?;
    let total = start.elapsed();
    let answer = started.elapsed();
    drop(up);
    std::fs::remove_dir_all(&directory)?;
    Ok(Figure {
        name: "clone to first token, cold".to_owned(),
        value: total.as_secs_f64(),
        unit: "s".to_owned(),
        budget: Some(BUDGET),
        note: format!(
            "release build {} s, `up` to first token {:.2} s",
            built.as_secs(),
            answer.as_secs_f64()
        ),
    })
}

/// `llmd up`, ended with this value.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // Its engines end with it: they hold a pipe to it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn up(llmd: &Path, port: u16) -> anyhow::Result<Up> {
    let child = Command::new(llmd)
        .args(["up", "--output", "plain", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", llmd.display()))?;
    Ok(Up(child))
}

/// Asks until a streamed answer begins. Until the router is ready there is no port or a 503.
fn first_token(port: u16) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if ask(port).unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no token within {PATIENCE:?}");
}

fn ask(port: u16) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}",
        QUESTION.len()
    )?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.starts_with("data:") && line.contains("\"content\":\"") && !line.contains("\"content\":\"\"")
        {
            return Ok(true);
        }
    }
    Ok(false)
}
