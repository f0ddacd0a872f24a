//! Selects the role by the name the binary is called by, then by the first argument.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use crate::exit::Failure;
use crate::{cli, serve};

/// Names that select the Endpoint Picker: ours, and upstream's program, which KServe starts by its path `/app/epp`.
const EPP_NAMES: [&str; 2] = ["llmd-epp", "epp"];
/// Names that select the routing sidecar: ours, and upstream's program.
const SIDECAR_NAMES: [&str; 2] = ["llmd-routing-sidecar", "pd-sidecar"];

/// Runs the role that `argv` selects.
pub(crate) fn dispatch(argv: Vec<OsString>) -> Result<ExitCode, Failure> {
    let mut rest = argv.iter().skip(1);
    match role(&argv) {
        Role::Epp => {
            // `llmd-epp epp …` is what a container with our entrypoint and upstream's arguments never says, and
            // `llmd epp …` always does
            let skip = 1 + usize::from(!EPP_NAMES.contains(&called_as(&argv)));
            serve::epp(argv.into_iter().skip(skip).collect())
        }
        Role::Sidecar => {
            let skip = 1 + usize::from(!SIDECAR_NAMES.contains(&called_as(&argv)));
            serve::sidecar(argv.into_iter().skip(skip).collect())
        }
        Role::Operator => serve::operator(argv.into_iter().skip(2).collect()),
        Role::Guard => {
            rest.next();
            let program = rest.skip_while(|argument| *argument == "--").cloned().collect();
            serve::guard(program)
        }
        Role::Cli => cli::run(argv),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// The Endpoint Picker, whose flags are Go's and not clap's.
    Epp,
    /// The routing sidecar, likewise.
    Sidecar,
    /// The operator, whose flags are like the Endpoint Picker's.
    Operator,
    /// Holds a foreign program for `llmd up`; not a verb for people.
    Guard,
    /// Everything else.
    Cli,
}

fn role(argv: &[OsString]) -> Role {
    if EPP_NAMES.contains(&called_as(argv)) {
        return Role::Epp;
    }
    if SIDECAR_NAMES.contains(&called_as(argv)) {
        return Role::Sidecar;
    }
    match argv.get(1).and_then(|first| first.to_str()) {
        Some("epp") => Role::Epp,
        Some("sidecar") => Role::Sidecar,
        Some("operator") => Role::Operator,
        Some("guard") => Role::Guard,
        _ => Role::Cli,
    }
}

/// The file name in `argv[0]`.
fn called_as(argv: &[OsString]) -> &str {
    argv.first()
        .map(Path::new)
        .and_then(Path::file_name)
        .and_then(OsStr::to_str)
        .unwrap_or("llmd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role_of(argv: &[&str]) -> Role {
        role(&argv.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_name_selects_the_role_and_then_the_first_argument() {
        assert_eq!(role_of(&["/usr/bin/llmd-epp", "-v=2"]), Role::Epp);
        assert_eq!(role_of(&["/app/epp", "--pool-name=x"]), Role::Epp);
        assert_eq!(role_of(&["./llmd", "epp", "--pool-name=x"]), Role::Epp);
        assert_eq!(role_of(&["/app/pd-sidecar", "--port=1"]), Role::Sidecar);
        assert_eq!(role_of(&["llmd", "sidecar", "--port=1"]), Role::Sidecar);
        assert_eq!(role_of(&["llmd", "guard", "--", "vllm"]), Role::Guard);
        assert_eq!(role_of(&["llmd", "operator", "-v=3"]), Role::Operator);
        assert_eq!(role_of(&["kubectl-llmd", "render"]), Role::Cli);
        assert_eq!(role_of(&["llmd"]), Role::Cli);
        assert_eq!(role_of(&[]), Role::Cli);
    }
}
