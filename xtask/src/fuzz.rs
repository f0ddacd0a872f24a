//! Fuzz targets, by hand before an issue is closed; CI replays the corpus instead.

use anyhow::Context as _;

use crate::cargo::{cargo, root, run as run_command};

/// Crates of fuzz targets, each a workspace of its own.
const FUZZ_DIRS: [&str; 3] = ["openai/fuzz", "epp/core/fuzz", "epp/server/fuzz"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds per target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,

    /// Only this target.
    target: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut ran = false;
    for dir in FUZZ_DIRS {
        let mut names = Vec::new();
        for target in std::fs::read_dir(root().join(dir).join("fuzz_targets"))? {
            let path = target?.path();
            names.push(
                path.file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort();
        for name in names {
            if arguments.target.as_ref().is_none_or(|wanted| *wanted == name) {
                ran = true;
                fuzz(dir, &name, arguments.seconds)?;
            }
        }
    }
    anyhow::ensure!(
        ran,
        "no fuzz target has this name: see fuzz_targets in {}",
        FUZZ_DIRS.join(", ")
    );
    Ok(())
}

fn fuzz(dir: &str, name: &str, seconds: u32) -> anyhow::Result<()> {
    // What a run finds goes beside the build, not among the seeds.
    let found = root().join("target/fuzz").join(name);
    std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let mut fuzz = cargo(&["fuzz", "run", "--fuzz-dir", dir, name]);
    fuzz.arg(found).arg(root().join(dir).join("corpus").join(name));
    fuzz.args(["--", &format!("-max_total_time={seconds}")]);
    // cargo-fuzz needs nightly flags; the pinned toolchain grants them by this variable.
    fuzz.env("RUSTC_BOOTSTRAP", "1").current_dir(root());
    run_command(fuzz)
}
