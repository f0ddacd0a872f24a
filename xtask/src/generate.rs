//! Files that are generated from code and checked in.

use std::path::PathBuf;

use anyhow::bail;

use crate::cargo::{cargo, command, llmd, output, root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail when a file is out of date.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.check {
        record_release()?;
    }
    let stale: Vec<String> = files()?
        .into_iter()
        .filter(|(path, content)| std::fs::read_to_string(root().join(path)).ok().as_ref() != Some(content))
        .map(|(path, content)| {
            if !arguments.check {
                let path = root().join(&path);
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                std::fs::write(&path, content)?;
            }
            Ok(path.display().to_string())
        })
        .collect::<anyhow::Result<_>>()?;
    if arguments.check && !stale.is_empty() {
        bail!(
            "out of date: {}; run `cargo xtask generate` and commit the result",
            stale.join(", ")
        );
    }
    for path in stale {
        println!("wrote {path}");
    }
    Ok(())
}

/// The pod templates of this version's engines, once: what a release rendered is never written again. The tests of the
/// renderer check them, and say so when the file is missing.
fn record_release() -> anyhow::Result<()> {
    let path = format!("operator/render/releases/v{}.json", env!("CARGO_PKG_VERSION"));
    if root().join(&path).exists() {
        return Ok(());
    }
    let mut record = cargo(&[
        "test",
        "--quiet",
        "--package=llmd-render",
        "--test=it",
        "releases::",
    ]);
    record.env("LLMD_RECORD_RELEASE", "1");
    output(record)?;
    println!("wrote {path}");
    Ok(())
}

/// Each generated file with its content, made by the binary itself.
fn files() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let binary = llmd(false)?;
    let print = |arguments: &[&str]| {
        let mut llmd = command(&binary);
        llmd.args(arguments);
        output(llmd)
    };
    Ok(vec![
        (
            "charts/llmd/files/crds/llmd.dev.yaml".into(),
            print(&["crds", "print"])?,
        ),
        (
            "charts/llmd/files/crds/gaie.yaml".into(),
            std::fs::read_to_string(root().join("crds/foreign/gaie.yaml"))?,
        ),
        (
            "charts/llmd/files/rbac.yaml".into(),
            print(&["rbac", "--output=yaml"])?,
        ),
    ])
}

impl Arguments {
    pub(crate) fn check() -> Self {
        Self { check: true }
    }
}
