//! The verbs as people type them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::cluster::bundle::{BundleArgs, bundle};
use crate::cluster::crds::{ApplyArgs, apply};
use crate::cluster::diff::{DiffArgs, diff};
use crate::cluster::preflight::{PreflightArgs, preflight};
use crate::cluster::status::{StatusArgs, status};
use crate::exit::{self, Failure};
use crate::kv_events::{self, KvEventsArgs};
use crate::output::Format;
use crate::{crds, paths, rbac, render, serve, shell, up, validate, version, wva};

/// llm-d in one binary: from one custom resource to a routed LLM service.
#[derive(Debug, Parser)]
#[command(
    name = "llmd",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a deployment, or attach running engines, on this machine
    Up(UpArgs),
    /// Print the Kubernetes objects of a deployment
    Render(RenderArgs),
    /// Check files without a cluster
    Validate(ValidateArgs),
    /// Show why a deployment on a cluster is as it is
    Status(StatusArgs),
    /// Show what would change on a cluster
    Diff(DiffArgs),
    /// Check whether a cluster has what a deployment needs
    Preflight(PreflightArgs),
    /// Write one archive about a deployment for a bug report
    Bundle(BundleArgs),
    /// Built-in well-lit paths
    #[command(subcommand)]
    Paths(PathsVerb),
    /// Custom resource definitions
    #[command(subcommand)]
    Crds(CrdsVerb),
    /// What the operator may do on a cluster, in the words of RBAC
    Rbac {
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Plan replicas of models over pools of GPUs
    #[command(subcommand)]
    Wva(WvaVerb),
    /// Print what engines publish about their KV caches
    KvEvents(KvEventsArgs),
    /// Simulate an inference engine
    Sim(Box<llmd_sim::SimArgs>),
    /// Run the Endpoint Picker; its flags are upstream's, in Go style
    #[command(disable_help_flag = true)]
    Epp(RoleArgs),
    /// Run the routing sidecar of a decode engine; its flags are upstream's, in Go style
    #[command(disable_help_flag = true)]
    Sidecar(RoleArgs),
    /// Run the operator; its flags are in Go style
    #[command(disable_help_flag = true)]
    Operator(RoleArgs),
    /// Print a shell completion script
    Completion {
        /// Shell to complete for
        shell: Shell,
    },
    /// Print the version
    Version {
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
}

/// Where documents come from.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// YAML or JSON file, `-` for standard input; may be repeated, and a file may hold several documents
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// `llmd render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    pub(crate) input: FileArgs,
    /// Output format; `table` lists the objects
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub(crate) output: Format,
    /// Namespace for documents without one
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Leave the `InferencePool` out: the Endpoint Picker selects pods by label and needs no foreign CRD
    #[arg(long)]
    pub(crate) no_inference_pool: bool,
    /// Where our own images are; default: the release's
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) image_repository: Option<String>,
    /// Tag of our own images; default: this version's
    #[arg(long, value_name = "TAG")]
    pub(crate) image_tag: Option<String>,
}

/// `llmd validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) input: FileArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
enum WvaVerb {
    /// Print the cheapest plan of a fleet, how far from the best it can be, and what binds; no cluster is asked
    Plan {
        /// YAML or JSON file (docs/wva.md), `-` for standard input
        #[arg(short, long = "filename", value_name = "FILE")]
        file: PathBuf,
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Also write the fleet as a mixed-integer program, for other solvers (CPLEX LP format)
        #[arg(long, value_name = "FILE")]
        write_lp: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum PathsVerb {
    /// List the paths with their versions
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Print a path as a WellLitPath document
    Show {
        /// Path name
        name: String,
        /// Output format
        #[arg(short, long, value_enum, default_value = "yaml")]
        output: Format,
    },
}

#[derive(Debug, Subcommand)]
enum CrdsVerb {
    /// Bring the definitions to a cluster
    Apply(ApplyArgs),
    /// Print the definitions
    Print {
        /// Output format
        #[arg(short, long, value_enum, default_value = "yaml")]
        output: Format,
    },
}

/// How `llmd up` shows the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpFormat {
    /// A live table (default on a terminal)
    Table,
    /// Lines; process output on standard error (default elsewhere)
    Plain,
    /// One JSON object per line
    Json,
}

/// `llmd up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// `LLMDeployment` to run, `-` for standard input; edits of the file are applied. Default: two simulated engines
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "engines")]
    pub(crate) file: Option<PathBuf>,
    /// Attach a running OpenAI-compatible server; may be repeated
    #[arg(long = "engine", value_name = "URL")]
    pub(crate) engines: Vec<String>,
    /// Port for clients; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Address for clients; one that is reachable from the network needs a key
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) bind: IpAddr,
    /// Key that clients must send as `Authorization: Bearer KEY`
    #[arg(long, env = "LLMD_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Directory that stands for a `PersistentVolumeClaim`; may be repeated
    #[arg(long = "claim", value_name = "NAME=DIRECTORY", value_parser = claim)]
    pub(crate) claims: Vec<(String, PathBuf)>,
    /// How to show the run
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<UpFormat>,
    /// Print the document that would run, and end
    #[arg(long, conflicts_with = "engines")]
    pub(crate) print: bool,
}

/// Roles with flags of their own: listed for help and completion; the flags never pass through here.
#[derive(Debug, Args)]
struct RoleArgs {
    /// Flags of the role (`llmd epp --help`, `llmd operator --help`)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

fn claim(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("write NAME=DIRECTORY".to_owned()),
    }
}

/// Parses and runs a verb.
pub(crate) fn run(argv: Vec<OsString>) -> Result<ExitCode, Failure> {
    let parsed = Cli::command()
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return Ok(clap_ending(&error)),
    };
    match cli.verb {
        Verb::Up(args) => up::up(args)?,
        Verb::Render(args) => render::render(&args)?,
        Verb::Validate(args) => return validate::validate(&args),
        Verb::Status(args) => return serve::over_network(status(&args)),
        Verb::Diff(args) => return serve::over_network(diff(&args)),
        Verb::Preflight(args) => return serve::over_network(preflight(&args)),
        Verb::Bundle(args) => return serve::over_network(bundle(&args)),
        Verb::Paths(PathsVerb::List { output }) => paths::list(output)?,
        Verb::Paths(PathsVerb::Show { name, output }) => paths::show(&name, output)?,
        Verb::Wva(WvaVerb::Plan {
            file,
            output,
            write_lp,
        }) => wva::plan(&file, output, write_lp.as_deref())?,
        Verb::KvEvents(args) => serve::over_network(kv_events::run(args))?,
        Verb::Crds(CrdsVerb::Apply(args)) => serve::over_network(apply(&args))?,
        Verb::Crds(CrdsVerb::Print { output }) => crds::print(output)?,
        Verb::Rbac { output } => rbac::print(output)?,
        Verb::Sim(args) => serve::sim(*args)?,
        Verb::Epp(args) => return serve::epp(args.flags),
        Verb::Sidecar(args) => return serve::sidecar(args.flags),
        Verb::Operator(args) => return serve::operator(args.flags),
        Verb::Completion { shell } => shell::completion(shell)?,
        Verb::Version { output } => version::version(output)?,
    }
    Ok(ExitCode::from(exit::OK))
}

/// Help and version are no failures; everything else is wrong usage.
fn clap_ending(error: &clap::Error) -> ExitCode {
    let _ = error.print(); // nobody is left to tell when the terminal is gone
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(exit::OK),
        _ => ExitCode::from(exit::USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_claim_needs_both_sides() {
        assert_eq!(claim("a=/b").unwrap(), ("a".to_owned(), PathBuf::from("/b")));
        assert!(claim("a").is_err() && claim("=b").is_err() && claim("a=").is_err());
    }
}
