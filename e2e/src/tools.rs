//! Programs of others that tests talk to, and the official client libraries.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Directory that `e2e/tools/install.sh` fills.
///
/// # Panics
/// When a tool is missing; the message says how to get it.
pub fn tool(name: &str) -> PathBuf {
    let cache = std::env::var_os("LLMD_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))
            .map(|base| base.join("llmd"))
    });
    let path = cache.expect("HOME is set").join("tools").join(name);
    assert!(
        path.exists(),
        "{} is not installed: run `cargo xtask test`, or e2e/tools/install.sh",
        path.display()
    );
    path
}

/// The real Envoy.
pub fn envoy() -> PathBuf {
    tool("envoy/bin/envoy")
}

/// Runs a Python program with the official `openai` client; `argv[1]` is the base URL.
///
/// # Panics
/// When the program fails; the message holds its output.
pub fn python(program: &str, base_url: &str) -> String {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", tool("openai-python"))
        .args(["-c", program, base_url]);
    run(command, "python3")
}

/// Runs an ES module with the official `openai` package; `process.argv[2]` is the base URL.
///
/// # Panics
/// When the program fails; the message holds its output.
pub fn node(program: &str, base_url: &str) -> String {
    // Bare imports are resolved from the importing file, so it must lie beside node_modules.
    let directory = tool("openai-node");
    let file = tempfile::Builder::new()
        .suffix(".mjs")
        .tempfile_in(&directory)
        .expect("a file beside node_modules");
    std::fs::write(file.path(), program).expect("a writable cache");
    let mut command = Command::new("node");
    command.arg(file.path()).arg(base_url);
    run(command, "node")
}

fn run(mut command: Command, name: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success(),
        "{name} failed with {status}\n{stdout}\n{stderr}"
    );
    stdout.into_owned()
}
