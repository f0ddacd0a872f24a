//! A running `llmd up` and what it says about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use llmd_e2e::http::{self, Answer};
use llmd_e2e::process::llmd_bin;
use llmd_e2e::{Process, poll_until};
use serde_json::{Value, json};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// A deployment of simulated engines, as a user would write it.
pub fn deployment(replicas: usize, args: &[(&str, &str)]) -> String {
    let args: BTreeMap<&str, &str> = args.iter().copied().collect();
    let engine = json!({"type": "Simulator", "args": args});
    format!(
        "apiVersion: llmd.dev/v1alpha1\nkind: LLMDeployment\nmetadata:\n  name: test\nspec:\n  path: simulated\n  \
         model:\n    name: test/model\n  engine: {engine}\n  pools:\n  - name: decode\n    replicas: {replicas}\n"
    )
}

/// A running `llmd up -o json` on a free port.
pub struct Up {
    pub process: Process,
    pub address: SocketAddr,
    pub url: String,
    dir: tempfile::TempDir,
}

impl Up {
    /// Runs a file with `content`, which tests may edit.
    pub fn file(content: &str) -> Self {
        Self::file_with(content, &[])
    }

    pub fn file_with(content: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cr.yaml");
        std::fs::write(&path, content).unwrap();
        let mut args = vec!["-f", path.to_str().unwrap()];
        args.extend(more);
        Self::start(&args, dir)
    }

    /// Runs with other arguments.
    pub fn with(args: &[&str]) -> Self {
        Self::start(args, tempfile::tempdir().unwrap())
    }

    fn start(args: &[&str], dir: tempfile::TempDir) -> Self {
        let base = ["up", "-o", "json", "--port", "0"];
        let mut process = Process::llmd(base.iter().chain(args));
        let ready = process.wait_for_line("the ready line", |line| of_type(line, "ready"));
        let url = ready["url"].as_str().unwrap().to_owned();
        let address = url
            .strip_prefix("http://")
            .and_then(|url| url.strip_suffix("/v1"))
            .unwrap()
            .parse()
            .unwrap();
        Self {
            process,
            address,
            url,
            dir,
        }
    }

    /// Replaces the file as editors do: by a rename.
    pub fn edit(&self, content: &str) {
        let fresh = self.dir.path().join("cr.yaml.new");
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(fresh, self.dir.path().join("cr.yaml")).unwrap();
    }

    /// The last table that was shown, by name.
    pub fn rows(&self) -> BTreeMap<String, Value> {
        let log = self.process.log();
        let last = log.iter().rev().find_map(|line| of_type(line, "endpoints"));
        let rows = last
            .map(|object| object["endpoints"].as_array().unwrap().clone())
            .unwrap_or_default();
        rows.into_iter()
            .map(|row| (row["name"].as_str().unwrap().to_owned(), row))
            .collect()
    }

    /// Names of engines that the router lists and that are ready.
    pub fn ready_engines(&self) -> Vec<String> {
        let rows = self.rows();
        let ready = rows
            .iter()
            .filter(|(_, row)| row["router"] == false && row["state"] == "ready");
        ready
            .filter(|(_, row)| row.get("inFlight").is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub fn wait_for_engines(&self, names: &[&str]) {
        let what = format!("engines {names:?}");
        poll_until(&what, DEADLINE, || (self.ready_engines() == names).then_some(()));
    }

    /// Process ids of all pods.
    pub fn pids(&self) -> Vec<u32> {
        self.rows()
            .values()
            .filter_map(|row| row["pid"].as_u64())
            .map(|pid| pid as u32)
            .collect()
    }

    pub fn pid_of(&self, name: &str) -> u32 {
        self.rows()[name]["pid"].as_u64().unwrap() as u32
    }

    /// A flag on the router's command line.
    pub fn router_flag(&self, name: &str) -> Option<String> {
        let router = self.pid_of("test-epp-0");
        let line = std::fs::read(format!("/proc/{router}/cmdline")).unwrap();
        let flag = format!("--{name}=");
        String::from_utf8_lossy(&line)
            .split('\0')
            .find_map(|arg| arg.strip_prefix(&flag).map(str::to_owned))
    }

    /// Waits for a note that contains `text`.
    pub fn wait_for_note(&mut self, text: &str) -> String {
        self.process.wait_for_line(text, |line| {
            let note = of_type(line, "note")?;
            let note = note["text"].as_str()?;
            note.contains(text).then(|| note.to_owned())
        })
    }

    pub async fn chat(&self, prompt: &str, max_tokens: u32) -> Answer {
        chat(self.address, "test/model", prompt, max_tokens)
            .await
            .unwrap()
    }
}

pub async fn chat(address: SocketAddr, model: &str, prompt: &str, max_tokens: u32) -> anyhow::Result<Answer> {
    http::post(
        address,
        "/v1/chat/completions",
        body(model, prompt, max_tokens, false),
        &[],
    )
    .await
}

pub fn body(model: &str, prompt: &str, max_tokens: u32, stream: bool) -> String {
    json!({
        "model": model,
        "max_tokens": max_tokens,
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    })
    .to_string()
}

/// The engine that answered.
pub fn engine(answer: &Answer) -> String {
    let engine = answer.header("x-inference-pod").to_owned();
    assert!(!engine.is_empty(), "{} {}", answer.status, answer.text());
    engine
}

pub fn of_type(line: &str, kind: &str) -> Option<Value> {
    let object: Value = serde_json::from_str(line).ok()?;
    (object["type"] == kind).then_some(object)
}

/// Runs `llmd` to its end: exit code, standard output, standard error.
pub fn llmd(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(llmd_bin())
        .args(args)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

pub fn wait_until_gone(pids: &[u32]) {
    poll_until("the end of all processes", DEADLINE, || {
        (!pids.iter().any(|pid| is_alive(*pid))).then_some(())
    });
}
