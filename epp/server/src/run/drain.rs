//! From SIGTERM to the last request: who still comes is answered, and the end is when nobody comes any more.
//!
//! ```text
//!  SIGTERM ─▶ not ready, client connections close ─▶ nobody for a third of the drain time (or all of it is over)
//!          ─▶ listeners close, streams finish
//! ```
//!
//! Upstream takes requests for the whole of `--drain-timeout`. A router that has been left by everybody need not:
//! an idle one would hold a rollout or a drained node back for half a minute.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use llmd_epp_core::Activity;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

/// Without a request for this part of the drain time, nobody is left: proxies and kube-proxies have heard of it.
const QUIET_PART: u32 = 3;
/// How often the requests are counted.
const LOOK: Duration = Duration::from_millis(100);
/// How long Envoy may take to obey.
const ENVOY_DEADLINE: Duration = Duration::from_secs(2);
/// Listeners stay open for `--drain-time-s`; answers close their connections at once or step by step, as
/// `--drain-strategy` says. Source: Envoy, "Administration interface".
const DRAIN_LISTENERS: &str = "/drain_listeners?graceful&skip_exit";

/// Returns when nobody has asked for a third of `longest`, at the latest after `longest`.
pub(super) async fn until_quiet(activity: impl Fn() -> Activity, longest: Duration) {
    let end = Instant::now() + longest;
    let mut looks = interval(LOOK);
    let (mut before, mut since) = (activity(), Instant::now());
    loop {
        let now = looks.tick().await;
        let current = activity();
        if current.open > 0 || current != before {
            (before, since) = (current, now);
        }
        if now >= end || now.duration_since(since) >= longest / QUIET_PART {
            return;
        }
    }
}

/// Tells the Envoy of this pod to close client connections, each with the answer it is carrying.
pub(super) async fn close_connections_of_envoy(admin_port: u16) {
    let asked = timeout(
        ENVOY_DEADLINE,
        ask(SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port))),
    )
    .await;
    match asked {
        Ok(Ok(200)) => {}
        Ok(Ok(status)) => tracing::warn!(status, "Envoy refused to drain its connections"),
        Ok(Err(error)) => tracing::warn!(%error, "Envoy was not told to drain its connections"),
        Err(_) => tracing::warn!("Envoy's admin port did not answer in time"),
    }
}

async fn ask(admin: SocketAddr) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(DRAIN_LISTENERS)
        .header(HOST, admin.to_string())
        .body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    /// How long the drain takes when exchanges are open and were opened as `activity` says at each time.
    async fn drained(activity: impl Fn(Duration) -> (usize, u64)) -> Duration {
        let start = Instant::now();
        let look = || {
            let (open, opened) = activity(start.elapsed());
            Activity { open, opened }
        };
        until_quiet(look, LONGEST).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_picker_leaves_after_a_third_of_the_time() {
        assert_eq!(drained(|_| (0, 7)).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_put_the_end_off() {
        let until_4 = drained(|at| (usize::from(at.as_secs() < 4), 7)).await;
        assert!((13..=14).contains(&until_4.as_secs()), "{until_4:?}");
        // Short ones, between two looks: only the count of all tells.
        let three = drained(|at| (0, at.as_secs().min(3))).await;
        assert!((13..=14).contains(&three.as_secs()), "{three:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_picker_that_nobody_leaves_ends_all_the_same() {
        assert_eq!(drained(|_| (3, 7)).await.as_secs(), 30);
    }

    #[tokio::test]
    async fn envoy_is_asked_by_post() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let admin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = admin.local_addr().unwrap().port();
        let asking = tokio::spawn(close_connections_of_envoy(port));
        let (mut stream, _) = admin.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]);
        assert!(
            head.starts_with("POST /drain_listeners?graceful&skip_exit HTTP/1.1"),
            "{head}"
        );
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        asking.await.unwrap();
    }
}
