//! `cargo xtask release`: what a release publishes, in one folder, without the network.
//!
//! Pushing is left to the one who releases; the last lines say the commands.

mod sbom;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::cargo::{command, llmd, output, root, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Package this program instead of building one with optimizations.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Rust target of the program; this machine's by default.
    #[arg(long)]
    target: Option<String>,
    /// Program that packages the chart.
    #[arg(long, default_value = "helm")]
    helm: PathBuf,
    /// Where to write; emptied first.
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    check_chart(
        &std::fs::read_to_string(root().join("charts/llmd/Chart.yaml"))?,
        version,
    )?;
    let out = root().join(&arguments.out);
    if out.exists() {
        // only what an earlier run left is taken away
        if !out.join("SHA256SUMS").exists() && out.read_dir()?.next().is_some() {
            bail!(
                "{} is not empty and not ours; choose another --out",
                out.display()
            );
        }
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;
    let target = match &arguments.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => llmd(true)?,
    };
    program(&binary, &out, &format!("llmd-v{version}-{target}"))?;

    let mut helm = command(&arguments.helm);
    helm.args(["package", "charts/llmd", "--destination"]).arg(&out);
    run_command(helm).context("packaging the chart; give --helm PATH")?;

    std::fs::write(out.join("llmd.cdx.json"), sbom::cyclonedx(version)?)?;
    std::fs::write(out.join("SHA256SUMS"), checksums(&out)?)?;
    println!("{} holds:", out.display());
    for name in names(&out)? {
        println!("  {name}");
    }
    println!(
        "to publish:\n  cargo xtask image --release --push REPOSITORY --tag v{version}, or the Dockerfile"
    );
    println!(
        "  helm push {}/llmd-{version}.tgz oci://REPOSITORY/charts",
        out.display()
    );
    Ok(())
}

/// The chart has the program's version, and names its images by it.
fn check_chart(chart: &str, version: &str) -> anyhow::Result<()> {
    for line in [format!("version: {version}"), format!("appVersion: v{version}")] {
        if !chart.lines().any(|found| found == line) {
            bail!("charts/llmd/Chart.yaml must say `{line}`, as Cargo.toml does");
        }
    }
    Ok(())
}

/// An archive with the program, under its names for the roles and for kubectl, and the licence.
fn program(binary: &Path, out: &Path, name: &str) -> anyhow::Result<()> {
    let folder = out.join(name);
    std::fs::create_dir(&folder)?;
    std::fs::copy(binary, folder.join("llmd"))
        .with_context(|| format!("cannot read {}", binary.display()))?;
    for link in ["kubectl-llmd", "llmd-epp", "llmd-routing-sidecar"] {
        std::os::unix::fs::symlink("llmd", folder.join(link))?;
    }
    std::fs::copy(root().join("LICENSE"), folder.join("LICENSE"))?;
    std::fs::copy(root().join("crds/foreign/NOTICE"), folder.join("NOTICE"))?;
    let mut tar = command("tar");
    // the same input gives the same archive, whoever packs it and when
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
    ]);
    tar.args(["--use-compress-program=gzip -n", "--create", "--file"])
        .arg(out.join(format!("{name}.tar.gz")))
        .arg("--directory")
        .arg(out)
        .arg(name);
    run_command(tar)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn host() -> anyhow::Result<String> {
    let mut rustc = command("rustc");
    rustc.arg("-vV");
    let said = output(rustc)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn names(out: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in out.read_dir()? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// In the form that `sha256sum --check` reads.
fn checksums(out: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for name in names(out)? {
        for byte in Sha256::digest(std::fs::read(out.join(&name))?) {
            write!(text, "{byte:02x}")?;
        }
        writeln!(text, "  {name}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_version_of_the_program() {
        let chart = std::fs::read_to_string(root().join("charts/llmd/Chart.yaml")).unwrap();
        check_chart(&chart, env!("CARGO_PKG_VERSION")).unwrap();
        let error = check_chart(&chart, "99.0.0").unwrap_err().to_string();
        assert!(error.contains("`version: 99.0.0`"), "{error}");
    }

    #[test]
    fn checksums_name_each_file() {
        let out = std::env::temp_dir().join(format!("llmd-release-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("a"), "").unwrap();
        let text = checksums(&out).unwrap();
        std::fs::remove_dir_all(&out).unwrap();
        assert_eq!(
            text,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n"
        );
    }
}
