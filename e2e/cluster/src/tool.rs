//! Runs `kubectl` and `helm` against a cluster.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::poll::DEADLINE;

/// Standard output of a command that must succeed before the deadline.
pub(crate) async fn run(mut command: Command, input: Option<&str>) -> anyhow::Result<String> {
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let said = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("cannot start {said}"))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // a command that reads no further says why on its standard error
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    // `kubectl wait` and `helm --wait` have deadlines of their own, up to a minute
    let limit = 3 * DEADLINE;
    let (output, ()) = tokio::time::timeout(limit, async { tokio::join!(child.wait_with_output(), feed) })
        .await
        .with_context(|| format!("{said} did not end within {limit:?}"))?;
    let output = output?;
    if !output.status.success() {
        bail!(
            "{said} failed with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// `kubectl` of the multi-call binary. What it learns about the cluster stays in `cache`: another cluster may have had
/// the same port.
pub(crate) fn kubectl(kube: &Path, kubeconfig: &Path, cache: &Path) -> Command {
    let mut command = Command::new(kube);
    command.arg("kubectl").arg("--kubeconfig").arg(kubeconfig);
    command.arg("--cache-dir").arg(cache);
    command
}
