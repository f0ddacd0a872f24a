//! The roles that serve until they are told to stop.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::exit::Failure;

/// A runtime with all cores, for the life of a role.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format!("cannot start the runtime: {error}")))
}

/// `llmd sim`.
pub(crate) fn sim(args: llmd_sim::SimArgs) -> Result<(), Failure> {
    llmd_process::logging::init(llmd_process::logging::Logging::default(), None);
    runtime()?.block_on(async {
        let shutdown = llmd_process::signals::shutdown_token().map_err(Failure::runtime)?;
        llmd_sim::run(args, async move { shutdown.cancelled().await })
            .await
            .map_err(|error| match error {
                llmd_sim::server::SimError::Config(error) => Failure::usage(error),
                other => Failure::runtime(other),
            })
    })
}

/// A verb that asks others.
pub(crate) fn over_network<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime()?.block_on(verb)
}

/// `llmd epp`.
#[allow(clippy::unnecessary_wraps)] // one signature for all roles
pub(crate) fn epp(flags: Vec<OsString>) -> Result<ExitCode, Failure> {
    Ok(llmd_epp::run(flags))
}

/// `llmd sidecar`.
#[allow(clippy::unnecessary_wraps)] // one signature for all roles
pub(crate) fn sidecar(flags: Vec<OsString>) -> Result<ExitCode, Failure> {
    Ok(llmd_sidecar::run(flags))
}

/// `llmd operator`.
#[allow(clippy::unnecessary_wraps)] // one signature for all roles
pub(crate) fn operator(flags: Vec<OsString>) -> Result<ExitCode, Failure> {
    Ok(llmd_operator::run(flags))
}

/// Runs a program in the place of `llmd up`'s child and ends it with `up`.
pub(crate) fn guard(program: Vec<OsString>) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let code = runtime
        .block_on(llmd_local::parent::guard(program.into_iter()))
        .map_err(Failure::runtime);
    runtime.shutdown_background(); // the watch on standard input never ends by itself
    code
}

/// `llmd up`.
pub(crate) fn up(options: llmd_local::up::Options) -> Result<(), Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(llmd_local::up::up(options));
    runtime.shutdown_background();
    result.map_err(|error| match error {
        llmd_local::up::UpError::Input(error) => Failure::input(error.lines()),
        llmd_local::up::UpError::Local(error) => Failure::runtime(error),
    })
}
