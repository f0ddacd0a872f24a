//! Fuzz targets, by hand before an issue is closed; CI replays the corpus instead.

use crate::cargo::{cargo, root, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds per target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for target in std::fs::read_dir(root().join("openai/fuzz/fuzz_targets"))? {
        let name = target?
            .path()
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut fuzz = cargo(&["fuzz", "run", "--fuzz-dir", "openai/fuzz", &name, "--"]);
        fuzz.arg(format!("-max_total_time={}", arguments.seconds));
        // cargo-fuzz needs nightly flags; the pinned toolchain grants them by this variable.
        fuzz.env("RUSTC_BOOTSTRAP", "1").current_dir(root());
        run_command(fuzz)?;
    }
    Ok(())
}
