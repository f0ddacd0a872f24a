//! The verbs as people type them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit::{self, Failure};
use crate::output::Format;
use crate::{crds, serve, shell, version};

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
    /// Custom resource definitions
    #[command(subcommand)]
    Crds(CrdsVerb),
    /// Simulate an inference engine
    Sim(Box<llmd_sim::SimArgs>),
    /// Run the Endpoint Picker; its flags are upstream's, in Go style
    #[command(disable_help_flag = true)]
    Epp(EppArgs),
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

#[derive(Debug, Subcommand)]
enum CrdsVerb {
    /// Print the definitions
    Print {
        /// Output format
        #[arg(short, long, value_enum, default_value = "yaml")]
        output: Format,
    },
}

/// `llmd epp`: listed for help and completion; the flags never pass through here.
#[derive(Debug, Args)]
struct EppArgs {
    /// Flags of the Endpoint Picker (`llmd epp --help`)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
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
        Verb::Crds(CrdsVerb::Print { output }) => crds::print(output)?,
        Verb::Sim(args) => serve::sim(*args)?,
        Verb::Epp(args) => return serve::epp(args.flags),
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
}
