//! Connections from the host into a cluster's network.
//!
//! A thread enters the network namespace; sockets that it makes are in there. The listener was made before, on the
//! host, and stays there: a socket belongs to the namespace that it was made in.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long a connection must stay open to count: longer than a refusal takes.
const OPEN_FOR: Duration = Duration::from_millis(100);

/// A listening port of the host's loopback interface that leads to one address in the cluster. It closes with the
/// guard.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Relays to `target` as seen from the network namespace of process `pid`.
    pub(crate) fn new(pid: u32, target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))
            .with_context(|| format!("process {pid} has no network namespace"))?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("relay {target}"))
            .spawn(move || {
                if let Err(error) = serve(&namespace, listener, target, stopped) {
                    eprintln!("relay to {target}: {error:#}");
                }
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where to connect on the host.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `Some` when a connection stays open. A relay accepts before it knows whether anybody listens, and closes when nobody
/// does. For servers that wait for the client to speak first, as those of HTTP and TLS.
pub(crate) async fn leads_somewhere(address: SocketAddr) -> Option<()> {
    let stream = TcpStream::connect(address).await.ok()?;
    let closed = tokio::time::timeout(OPEN_FOR, stream.peek(&mut [0])).await;
    closed.is_err().then_some(())
}

fn serve(
    namespace: &File,
    listener: TcpListener,
    target: SocketAddr,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = async {
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(async move {
                    // A target that refuses ends the connection, which is what a client of it would see too.
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = near.set_nodelay(true);
                        let _ = far.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
        Ok(())
    })
}
