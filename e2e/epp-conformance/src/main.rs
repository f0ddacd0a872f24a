//! `llmd-epp-conformance`: plays the cases against a picker and reports.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use llmd_epp_conformance::case::{Profile, Selected};
use llmd_epp_conformance::report::{Implementation, Report};
use llmd_epp_conformance::rig::{Binary, Running};
use llmd_epp_conformance::run::{Options, Target, run};
use llmd_epp_conformance::stream::PATIENCE;
use llmd_epp_conformance::{coverage, suite};

#[derive(Parser)]
#[command(about = "Conformance cases for Endpoint Pickers over ext-proc", version)]
struct Arguments {
    /// Address of a picker that runs already, its ext-proc port; plays the portable cases only.
    #[arg(
        long,
        value_name = "HOST:PORT",
        conflicts_with = "epp_binary",
        requires = "endpoints"
    )]
    target: Option<SocketAddr>,
    /// That port has TLS, as upstream's by default; its certificate is not looked at.
    #[arg(long, requires = "target")]
    tls: bool,
    /// Endpoints of that picker, as `name=ip:port` or `ip:port`.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Address of that picker's metrics page.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// A picker to start for each set-up.
    #[arg(long, value_name = "PATH")]
    epp_binary: Option<PathBuf>,
    /// An argument before all others of that picker, such as a verb; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    epp_arg: Vec<String>,
    /// Configuration for the cases that need no particular one; discovery is added.
    #[arg(long, requires = "epp_binary")]
    config_file: Option<PathBuf>,
    /// Whose ways are accepted where pickers differ by decision.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Only cases whose name or rows contain this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Pickers at a time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Write the report to this file, as YAML.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Name of the implementation in the report.
    #[arg(long, default_value = "unnamed")]
    implementation: String,
    /// Its version.
    #[arg(long, default_value = "unknown")]
    implementation_version: String,
    /// List the cases and run none.
    #[arg(long)]
    list: bool,
    /// List the rows of the reference with their cases and run none.
    #[arg(long, conflicts_with = "list")]
    rows: bool,
}

fn main() -> ExitCode {
    match execute(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether no case failed.
fn execute(arguments: Arguments) -> anyhow::Result<bool> {
    let all = suite::cases()?;
    if arguments.rows {
        print_rows(&all)?;
        return Ok(true);
    }
    let is_wanted = |case: &Selected| {
        case.id.contains(&arguments.filter)
            || case.case.sheet.iter().any(|row| row.contains(&arguments.filter))
    };
    let cases: Vec<Selected> = all.into_iter().filter(is_wanted).collect();
    if cases.is_empty() {
        bail!("no case matches `{}`", arguments.filter);
    }
    if arguments.list {
        for case in &cases {
            let portable = if case.setup.is_portable() && !case.setup.is_own {
                "portable"
            } else {
                ""
            };
            println!("{:<60} {portable:<8} {}", case.id, case.case.sheet.join(" "));
        }
        return Ok(true);
    }
    let options = Options {
        target: target(&arguments)?,
        profile: arguments.profile,
        jobs: arguments.jobs,
        patience: PATIENCE,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let results = runtime.block_on(run(cases, options))?;
    let implementation = Implementation {
        project: arguments.implementation,
        version: arguments.implementation_version,
    };
    let report = Report::new(implementation, arguments.profile, results);
    println!("{report}");
    if let Some(path) = arguments.report {
        std::fs::write(&path, serde_yaml::to_string(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.failed().is_empty())
}

fn target(arguments: &Arguments) -> anyhow::Result<Target> {
    match (&arguments.epp_binary, arguments.target) {
        (Some(program), _) => {
            let config = arguments.config_file.as_ref().map(|path| {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serde_yaml::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))
            });
            Ok(Target::Binary(Binary {
                program: program.clone(),
                arguments: arguments.epp_arg.clone(),
                config: config.transpose()?,
            }))
        }
        (None, Some(ext_proc)) => Ok(Target::Running(Running {
            ext_proc,
            with_tls: arguments.tls,
            metrics: arguments.metrics,
            endpoints: endpoints(&arguments.endpoints)?,
        })),
        (None, None) => {
            bail!("give a picker: `--epp-binary PATH`, or `--target HOST:PORT` with `--endpoints`")
        }
    }
}

/// Endpoints by name; `a`, `b`, … for those without one, as the portable cases call them.
fn endpoints(given: &[String]) -> anyhow::Result<Vec<(String, SocketAddr)>> {
    let names = ('a'..='z').map(String::from);
    given
        .iter()
        .zip(names)
        .map(|(entry, letter)| {
            let (name, address) = entry
                .split_once('=')
                .map_or((letter.as_str(), entry.as_str()), |pair| pair);
            let address = address
                .parse()
                .with_context(|| format!("`{address}` is no address such as 10.0.0.1:8000"))?;
            Ok((name.to_owned(), address))
        })
        .collect()
}

fn print_rows(cases: &[Selected]) -> anyhow::Result<()> {
    let coverage = coverage::coverage(cases)?;
    for (row, cases) in &coverage.rows {
        let shown = match coverage.excused.get(row) {
            Some(reason) if cases.is_empty() => format!("no case: {reason}"),
            _ if cases.is_empty() => "NO CASE".to_owned(),
            _ => cases.join(" "),
        };
        println!("{row:<50} {shown}");
    }
    let covered = coverage.rows.values().filter(|cases| !cases.is_empty()).count();
    println!("{covered} of {} rows have a case", coverage.rows.len());
    Ok(())
}
