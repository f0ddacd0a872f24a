//! However it ends, no process stays.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{DEADLINE, Up, deployment, is_alive, wait_until_gone};

#[test]
fn ctrl_c_leaves_no_process() {
    let mut up = Up::file(&deployment(2, &[]));
    up.wait_for_engines(&["test-decode-0", "test-decode-1"]);
    let pids = up.pids();
    assert_eq!(pids.len(), 3, "two engines and the router");
    up.process.signal(Signal::SIGINT);
    assert_eq!(up.process.wait(DEADLINE).code(), Some(0));
    assert!(
        !pids.iter().any(|pid| is_alive(*pid)),
        "they were gone before it ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_does_not_wait_for_streams() {
    let mut up = Up::file(&deployment(1, &[("inter-token-latency", "1s")]));
    let pids = up.pids();
    let body = super::support::body("test/model", "a slow one", 1000, true);
    let request = hyper::Request::post("/v1/chat/completions")
        .header("host", "llmd.test")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(body.into()))
        .unwrap();
    let _stream = llmd_e2e::http::open(up.address, request).await.unwrap();
    up.process.signal(Signal::SIGINT);
    up.wait_for_note("press Ctrl-C again");
    up.process.signal(Signal::SIGINT);
    assert_eq!(up.process.wait(DEADLINE).code(), Some(0));
    wait_until_gone(&pids);
}

#[test]
fn kill_dash_nine_of_up_leaves_no_process_and_no_key() {
    let mut up = Up::file_with(&deployment(2, &[]), &["--api-key", "s3cret"]);
    up.wait_for_engines(&["test-decode-0", "test-decode-1"]);
    let pids = up.pids();
    let dir = private_dir(&up);
    assert!(dir.join("api-key").exists());
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users cannot look in");
    kill(Pid::from_raw(up.process.pid().cast_signed()), Signal::SIGKILL).unwrap();
    up.process.wait(DEADLINE);
    wait_until_gone(&pids);
    assert!(!dir.exists(), "{}", dir.display());
}

/// The directory of the run, as the router's command line shows it.
fn private_dir(up: &Up) -> PathBuf {
    let key = up.router_flag("proxy-api-key-file").unwrap();
    PathBuf::from(key).parent().unwrap().to_owned()
}
