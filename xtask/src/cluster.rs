//! `cargo xtask cluster` and `cargo xtask image`: builds what they need, then hands over to `llmd-cluster`.

use std::path::PathBuf;
use std::process::Command;

use clap::Subcommand;

use crate::cargo::{cargo, command, llmd, metadata, output, root, run};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Start a Kubernetes on this machine that stays, with our chart; prints its kubeconfig.
    #[command(disable_help_flag = true)]
    Up {
        /// Options of `llmd-cluster up`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// End it.
    Down,
    /// A shell, or a command, that talks to it.
    Shell {
        /// Command to run instead of `$SHELL`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Args)]
pub(crate) struct Image {
    /// Build with optimizations.
    #[arg(long)]
    release: bool,
    /// Name and push the images under this registry and path, such as `ghcr.io/me`. Credentials:
    /// `LLMD_REGISTRY_USER` and `LLMD_REGISTRY_PASSWORD`.
    #[arg(long, value_name = "REPO")]
    push: Option<String>,
    /// Tag of the images; the version with the commit by default.
    #[arg(long)]
    tag: Option<String>,
}

/// `cargo xtask cluster …`.
pub(crate) fn cluster(verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Up { options } => {
            run(command("e2e/cluster/build.sh"))?;
            if is_root()? {
                let mut packages = command("e2e/cluster/build.sh");
                packages.arg("packages");
                run(packages)?;
            }
            let binary = llmd(false)?;
            let mut up = Command::new(binary.with_file_name("llmd-cluster"));
            up.arg("up").arg("--binary").arg(binary);
            up.arg("--chart").arg(root().join("charts/llmd")).args(options);
            run(up)
        }
        Verb::Down => {
            let mut down = tool()?;
            down.arg("down");
            run(down)
        }
        Verb::Shell { command } => {
            let mut shell = tool()?;
            shell.arg("shell").args(command);
            run(shell)
        }
    }
}

/// `cargo xtask image`.
pub(crate) fn image(arguments: &Image) -> anyhow::Result<()> {
    let binary = llmd(arguments.release)?;
    let tag = match &arguments.tag {
        Some(tag) => tag.clone(),
        None => default_tag()?,
    };
    let archive = metadata()?.target_directory.join("llmd-image.tar");
    let mut image = tool()?;
    image
        .arg("image")
        .arg("--binary")
        .arg(binary)
        .arg("--archive")
        .arg(archive);
    image.args(["--tag", &tag]);
    if let Some(repository) = &arguments.push {
        image.args(["--repository", repository, "--push"]);
    }
    run(image)
}

/// The development build of `llmd-cluster`.
fn tool() -> anyhow::Result<Command> {
    let mut build = cargo(&["build", "--locked", "--quiet"]);
    build.args(["--package=llmd-e2e-cluster", "--bin=llmd-cluster"]);
    run(build)?;
    let binary: PathBuf = metadata()?.target_directory.join("debug/llmd-cluster");
    Ok(command(binary))
}

fn default_tag() -> anyhow::Result<String> {
    let mut commit = command("git");
    commit.args(["rev-parse", "--short=12", "HEAD"]);
    Ok(format!(
        "v{}-{}",
        env!("CARGO_PKG_VERSION"),
        output(commit)?.trim()
    ))
}

fn is_root() -> anyhow::Result<bool> {
    let mut id = command("id");
    id.arg("-u");
    Ok(output(id)?.trim() == "0")
}
