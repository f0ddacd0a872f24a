//! Exit codes and the one place that reports a failure.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// Nothing left to do.
pub(crate) const OK: u8 = 0;
/// A difference was found, or something is not ready.
pub(crate) const DIFFERENT: u8 = 1;
/// Wrong usage or invalid input.
pub(crate) const USAGE: u8 = 2;
/// The machine or a server did not do its part.
pub(crate) const RUNTIME: u8 = 3;

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    lines: Vec<String>,
}

impl Failure {
    /// Invalid input, one line per problem.
    pub(crate) fn input(lines: Vec<String>) -> Self {
        Self { code: USAGE, lines }
    }

    /// A single problem of usage or input.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "errors are handed over, whether or not they are borrowed"
    )]
    pub(crate) fn usage(line: impl std::fmt::Display) -> Self {
        Self::input(vec![line.to_string()])
    }

    /// A runtime error.
    #[allow(clippy::needless_pass_by_value, reason = "as for `usage`")]
    pub(crate) fn runtime(line: impl std::fmt::Display) -> Self {
        Self {
            code: RUNTIME,
            lines: vec![line.to_string()],
        }
    }

    /// Prints the problems on standard error and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        for line in self.lines {
            anstream::eprintln!("{red}error:{red:#} {line}");
        }
        ExitCode::from(self.code)
    }
}
