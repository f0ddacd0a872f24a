//! Ends a child when `llmd up` dies, however it dies.
//!
//! Each child's standard input is a pipe that `up` holds open and never writes to. The kernel closes it when `up`
//! is gone, by `kill -9` too, and the reader then sees the end. Our own roles watch it themselves; other programs
//! run under [`guard`], which watches for them. A death signal set between fork and exec would need `unsafe`.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Set in our own roles' environment by `up`, to its private directory: exit when standard input ends, and leave
/// no directory behind, for it may hold a key.
pub const EXIT_WITH_PARENT: &str = "LLMD_EXIT_WITH_PARENT";

/// How the names of private directories begin; nothing else is ever removed.
pub const DIR_PREFIX: &str = "llmd-up-";

/// What a guarded program gets between SIGTERM and SIGKILL when the parent is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// Starts the watch when this process was started by `up`. The process exits at once when its parent dies: nobody
/// is left to whom it could answer for.
pub fn exit_with_parent_if_asked() {
    let Some(dir) = std::env::var_os(EXIT_WITH_PARENT).map(PathBuf::from) else {
        return;
    };
    std::thread::spawn(move || {
        let mut sink = [0u8; 64];
        let mut input = std::io::stdin().lock();
        loop {
            match input.read(&mut sink) {
                Ok(0) | Err(_) => {
                    remove_private_dir(&dir);
                    std::process::exit(143);
                }
                Ok(_) => {}
            }
        }
    });
}

fn remove_private_dir(dir: &Path) {
    let ours = dir
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(DIR_PREFIX));
    // siblings do the same at the same time, and one may remove what another is about to
    for _ in 0..3 {
        if !ours || std::fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
    }
}

/// Runs `program` in this process's group until it ends or the parent dies, and exits with its code.
pub async fn guard(mut program: impl Iterator<Item = OsString>) -> std::io::Result<ExitCode> {
    let Some(path) = program.next() else {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "no program to guard",
        ));
    };
    // SIGTERM goes to the whole group; the program decides how to end, the guard only waits for it
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = tokio::process::Command::new(path)
        .args(program)
        .stdin(Stdio::null())
        .spawn()?;
    let mut input = tokio::io::stdin();
    let mut sink = [0u8; 64];
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = terminate.recv() => {}
            read = input.read(&mut sink) => if matches!(read, Ok(0) | Err(_)) {
                let _ = kill(Pid::from_raw(0), Signal::SIGTERM);
                if let Ok(status) = tokio::time::timeout(ORPHAN_GRACE, child.wait()).await {
                    let _ = status;
                }
                let _ = kill(Pid::from_raw(0), Signal::SIGKILL);
            }
        }
    };
    Ok(ExitCode::from(code(status)))
}

/// The shell's convention: the code, or 128 plus the signal.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_private_directory_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let (ours, foreign) = (parent.path().join("llmd-up-x"), parent.path().join("home"));
        for dir in [&ours, &foreign] {
            std::fs::create_dir(dir).unwrap();
            remove_private_dir(dir);
        }
        assert!(!ours.exists() && foreign.exists());
    }
}
