//! `llmd up`: from flags to options of the local runtime.

use std::path::Path;

use llmd_local::source::{self, Source};
use llmd_local::up::{Options, own_executable, user_environment};
use llmd_local::view::Output;

use crate::cli::{UpArgs, UpFormat};
use crate::exit::Failure;
use crate::{documents, output, serve};

/// Runs, or prints what would run.
pub(crate) fn up(args: UpArgs) -> Result<(), Failure> {
    let UpArgs {
        file,
        engines,
        port,
        bind,
        api_key,
        claims,
        output: format,
        print,
    } = args;
    if print {
        let text = match &file {
            Some(path) => documents::read_one(path)?.1,
            None => source::BUILT_IN.to_owned(),
        };
        return output::print(&text);
    }
    let source = match file {
        Some(path) if path == Path::new("-") => Source::Text(documents::read_one(&path)?.1),
        Some(path) => Source::File(path),
        None if engines.is_empty() => Source::BuiltIn,
        None => Source::Engines(engines),
    };
    serve::up(Options {
        source,
        bind,
        port,
        api_key,
        claims: claims.into_iter().collect(),
        output: match format {
            Some(UpFormat::Table) => Output::Table,
            Some(UpFormat::Plain) => Output::Plain,
            Some(UpFormat::Json) => Output::Json,
            None => Output::for_terminal(),
        },
        executable: own_executable(),
        env: user_environment(),
    })
}
