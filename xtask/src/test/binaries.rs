//! The test binaries of the workspace, built once with one set of features, and what to run of each.
//!
//! `cargo test -p X` per tier would build shared dependencies again with the features of that package alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::Selection;
use super::tiers::Tier;
use crate::cargo::{cargo, output};

/// One test binary.
pub(super) struct Binary {
    pub(super) package: String,
    /// Name of the target, such as `it`.
    pub(super) target: String,
    /// Whether its tests can start clusters: integration tests of a package with `llmd-e2e-cluster`.
    clusters: bool,
    executable: PathBuf,
    /// Tests run in the folder of their package.
    folder: PathBuf,
}

/// A line that cargo prints with `--message-format=json`, as far as it is needed here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds all of them.
pub(super) fn build() -> anyhow::Result<Vec<Binary>> {
    let mut build = cargo(&["test", "--locked", "--workspace", "--no-run"]);
    build.arg("--message-format=json-render-diagnostics");
    build.stderr(Stdio::inherit());
    let built = build.output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the tests do not build");
    }
    let mut binaries = String::from_utf8(built.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok().and_then(binary))
        .collect::<Vec<_>>();
    binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(binaries)
}

fn binary(message: Message) -> Option<Binary> {
    let target = message.target?;
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    let folder = message.manifest_path?.parent()?.to_path_buf();
    let (package, clusters) = package(&folder)?;
    Some(Binary {
        package,
        target: target.name,
        clusters: clusters && target.kind.iter().any(|kind| kind == "test"),
        executable: message.executable?,
        folder,
    })
}

/// Name of a package and whether it has `llmd-e2e-cluster`, from its manifest: the identifiers in cargo's messages are
/// not meant to be taken apart.
fn package(folder: &Path) -> Option<(String, bool)> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    let depends = ["dependencies", "dev-dependencies"].iter().any(|table| {
        manifest
            .get(*table)
            .is_some_and(|table| table.get("llmd-e2e-cluster").is_some())
    });
    Some((name.to_owned(), depends || name == "llmd-e2e-cluster"))
}

impl Binary {
    /// A command that runs the selected tests; `None` when there are none.
    pub(super) fn command(&self, selection: &Selection) -> anyhow::Result<Option<Command>> {
        let mut list = self.plain();
        list.args(["--list", "--format", "terse"]);
        let listed = output(list)?;
        let names: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .collect();
        let wanted: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| selection.wants(&self.package, Tier::of(&self.package, self.clusters, name), name))
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut run = self.plain();
        if wanted.len() < names.len() {
            run.arg("--exact").args(wanted);
        }
        Ok(Some(run))
    }

    fn plain(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}
