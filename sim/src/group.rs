//! The processes of a data-parallel group: none answers before all are there.
//!
//! ```text
//!  worker ── "start rank\\n" ──▶ leader (rank 0)      the connection is the worker's sign of life
//!         ◀── "complete\\n" ──
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::args::{GroupAddress, Ranks};

/// Time for the parts of the meeting.
const WITHIN: Duration = Duration::from_secs(10);

/// Pause before a worker asks again for a leader that is not there.
const PAUSE: Duration = Duration::from_millis(200);

/// Most bytes of a message.
const LONGEST: u64 = 64;

/// This process' part in its group.
pub(crate) enum Group {
    /// It is the whole group.
    Alone,
    /// It is the first process; the others come to it.
    Leader(TcpListener),
    /// It goes to the first process.
    Worker(GroupAddress),
}

impl Group {
    /// Listens where this process is to be found.
    /// The first process listens on `host`, its own: the name by which others know it may not resolve yet.
    pub(crate) async fn bind(host: &str, ranks: &Ranks) -> io::Result<Self> {
        match &ranks.group {
            None => Ok(Self::Alone),
            Some(group) if ranks.start == 0 => Ok(Self::Leader(
                TcpListener::bind((host.trim_matches(['[', ']']), group.port)).await?,
            )),
            Some(group) => Ok(Self::Worker(group.clone())),
        }
    }

    /// Where the first process listens for the others.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Leader(listener) => listener.local_addr().ok(),
            Self::Alone | Self::Worker(_) => None,
        }
    }

    /// Reports to `complete` whether all processes are there, for as long as it is polled.
    pub(crate) async fn meet(self, ranks: Ranks, complete: watch::Sender<bool>) {
        match self {
            Self::Alone => {
                complete.send_replace(true);
            }
            Self::Leader(listener) => lead(listener, ranks, complete).await,
            Self::Worker(leader) => loop {
                if let Err(error) = join(&leader, &ranks, &complete).await {
                    tracing::info!(%error, host = leader.host, port = leader.port, "the group is not complete");
                }
                complete.send_replace(false);
                tokio::time::sleep(PAUSE).await;
            },
        }
    }
}

async fn lead(listener: TcpListener, ranks: Ranks, complete: watch::Sender<bool>) {
    let there = Arc::new(Mutex::new(BTreeSet::from([0])));
    let complete = Arc::new(complete);
    let mut workers = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "group: accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while workers.try_join_next().is_some() {}
        let (there, complete, ranks) = (there.clone(), complete.clone(), ranks.clone());
        workers.spawn(async move {
            if let Err(error) = attend(stream, &there, &ranks, &complete).await {
                tracing::info!(%error, "a process of the group went away");
            }
        });
    }
}

async fn attend(
    stream: TcpStream,
    there: &Mutex<BTreeSet<usize>>,
    ranks: &Ranks,
    complete: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    tokio::time::timeout(WITHIN, (&mut stream).take(LONGEST).read_line(&mut line)).await??;
    let start = line.trim().parse().ok();
    let start: usize = start
        .filter(|start: &usize| start.is_multiple_of(ranks.local) && (1..ranks.size).contains(start))
        .ok_or(io::ErrorKind::InvalidData)?;
    let count = |change: &dyn Fn(&mut BTreeSet<usize>)| {
        let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut there);
        complete.send_replace(there.len() * ranks.local == ranks.size);
    };
    count(&|there| {
        there.insert(start);
    });
    let ended = tell(&mut stream, complete.subscribe()).await;
    count(&|there| {
        there.remove(&start);
    });
    ended
}

/// Tells a worker each time the group is complete; ends with the worker, or when another one is missing, so that
/// all come again.
async fn tell(stream: &mut BufReader<TcpStream>, mut complete: watch::Receiver<bool>) -> io::Result<()> {
    let mut told = false;
    loop {
        let now = *complete.borrow_and_update();
        if told && !now {
            return Ok(());
        }
        if now && !told {
            told = true;
            tokio::time::timeout(WITHIN, stream.write_all(b"complete\n")).await??;
        }
        tokio::select! {
            changed = complete.changed() => if changed.is_err() {
                return Ok(());
            },
            // A worker says nothing more: whatever can be read is its end.
            end = stream.fill_buf() => return end.map(|_| ()),
        }
    }
}

async fn join(leader: &GroupAddress, ranks: &Ranks, complete: &watch::Sender<bool>) -> io::Result<()> {
    let connect = TcpStream::connect((leader.host.as_str(), leader.port));
    let mut stream = BufReader::new(tokio::time::timeout(WITHIN, connect).await??);
    let hello = format!("{}\n", ranks.start);
    tokio::time::timeout(WITHIN, stream.write_all(hello.as_bytes())).await??;
    // The others may come late: there is no deadline for a group to be complete but that of its probes.
    let mut line = String::new();
    while (&mut stream).take(LONGEST).read_line(&mut line).await? > 0 {
        complete.send_replace(line == "complete\n");
        line.clear();
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
