//! What a run tells its user, over a bounded channel that never holds up a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// How a note is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One line per state change.
    Info,
    /// Degraded, heals by itself or by the user's edit.
    Warning,
    /// Somebody must act.
    Error,
}

/// One thing to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line of a process.
    Log {
        /// Pod and, in pods of several containers, container.
        source: Arc<str>,
        /// The line without its end.
        line: String,
    },
    /// Something the runtime did or saw.
    Note {
        /// How it is meant.
        level: Level,
        /// Text.
        text: String,
    },
    /// A process ended without being asked to.
    Ended {
        /// As in [`Event::Log`].
        source: Arc<str>,
        /// What happened and what follows.
        text: String,
    },
}

/// Events that wait to be shown; more are dropped and counted.
const CAPACITY: usize = 4096;

/// The sending side.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// A channel with its receiving side.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let dropped = Arc::default();
        (Self { sender, dropped }, receiver)
    }

    /// A line of a process; dropped when the terminal does not keep up.
    pub fn log(&self, source: &Arc<str>, line: String) {
        self.send(Event::Log {
            source: Arc::clone(source),
            line,
        });
    }

    /// A note of the runtime.
    pub fn note(&self, level: Level, text: impl Into<String>) {
        self.send(Event::Note {
            level,
            text: text.into(),
        });
    }

    /// The unexpected end of a process.
    pub fn ended(&self, source: &Arc<str>, text: impl Into<String>) {
        self.send(Event::Ended {
            source: Arc::clone(source),
            text: text.into(),
        });
    }

    /// Events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, event: Event) {
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
