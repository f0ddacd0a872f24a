//! What is told about each request when it is over.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode, Version};

use crate::connection::Client;

/// Longest path and request id that are kept, in bytes; both are the client's choice.
const LONGEST: usize = 512;
/// Names a request across hops.
const REQUEST_ID: &str = "x-request-id";

/// Takes the records. It is called on the tasks that serve and must not wait.
pub type AccessLog = Arc<dyn Fn(Record) + Send + Sync>;

/// How a request looked from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client got the whole answer.
    Complete,
    /// The client left, or took nothing for too long.
    ClientGone,
    /// The answer was cut.
    Broken,
}

/// One request. Bodies, queries and values of headers but the request id are not in it: they hold prompts and keys.
#[derive(Clone, Debug)]
pub struct Record {
    /// The client, or the hop before.
    pub peer: IpAddr,
    /// `GET`, `POST`, ….
    pub method: Method,
    /// Without its query; at most 512 bytes.
    pub path: String,
    /// Protocol of the client's connection.
    pub version: Version,
    /// Whether the request came over TLS.
    pub is_secure: bool,
    /// `None` when the client left before there was an answer.
    pub status: Option<StatusCode>,
    /// Bytes of the answer's body that were handed to the client's connection.
    pub sent: u64,
    /// From the whole head to the head of the answer.
    pub first: Option<Duration>,
    /// From the whole head to the end.
    pub took: Duration,
    /// Who answered first; `None` for answers of the forwarder and the flight.
    pub target: Option<SocketAddr>,
    /// `x-request-id` as it was sent on, else as it came; at most 512 bytes.
    pub request_id: Option<String>,
    /// How it ended.
    pub ended: Ended,
}

/// A record that is still written on; it is handed over when it is dropped.
pub(crate) struct Entry {
    log: AccessLog,
    start: Instant,
    record: Record,
}

impl Entry {
    pub(crate) fn new<B>(log: &AccessLog, request: &Request<B>, client: Client) -> Self {
        Self {
            log: Arc::clone(log),
            start: Instant::now(),
            record: Record {
                peer: client.peer.ip().to_canonical(),
                method: request.method().clone(),
                path: short(request.uri().path()),
                version: request.version(),
                is_secure: client.is_secure,
                status: None,
                sent: 0,
                first: None,
                took: Duration::ZERO,
                target: None,
                request_id: request_id(request.headers()),
                ended: Ended::ClientGone,
            },
        }
    }

    /// A target began to answer a request that was sent with these headers.
    pub(crate) fn forwarded(&mut self, target: SocketAddr, headers: &HeaderMap) {
        self.record.target = Some(target);
        self.record.request_id = request_id(headers).or_else(|| self.record.request_id.take());
    }

    /// The head of the answer goes to the client.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.record.status = Some(status);
        self.record.first = Some(self.start.elapsed());
        // Nobody asks for the end of a body that there is not.
        let is_bare = self.record.method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare {
            self.record.ended = Ended::Complete;
        }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.record.sent += bytes as u64;
    }

    pub(crate) fn ended(&mut self, ended: Ended) {
        self.record.ended = ended;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.record.took = self.start.elapsed();
        (self.log)(self.record.clone());
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    headers.get(REQUEST_ID)?.to_str().ok().map(short)
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}
