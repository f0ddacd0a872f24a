//! What listens: one engine, several behind one port, or the supervisor that speaks for all of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::api::ApiError;
use crate::api::stream::{Cut, SimBody};
use crate::service::{Service, error_response, plain};

/// Header that names the engine of the group.
const RANK: &str = "x-data-parallel-rank";

/// Who answers at a port.
pub(crate) enum Front {
    /// One engine, whatever rank is asked for.
    One(Arc<Service>),
    /// Engines behind one port: the one whose rank is asked for, else one after the other.
    Several {
        /// Engines, in order of their ranks.
        services: Vec<Arc<Service>>,
        /// Rank of the first.
        start: usize,
        /// Requests that named none.
        next: AtomicUsize,
    },
    /// All engines of the process, for probes.
    Supervisor(Vec<Arc<Service>>),
}

impl Front {
    /// Answers one request; an error cuts the connection.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Result<Response<SimBody>, Cut> {
        match self {
            Self::One(service) => service.handle(request).await,
            Self::Several {
                services,
                start,
                next,
            } => {
                let index = match request.headers().get(RANK) {
                    None => next.fetch_add(1, Ordering::Relaxed) % services.len(),
                    Some(rank) => {
                        let rank: Option<usize> = rank.to_str().ok().and_then(|rank| rank.parse().ok());
                        let index = rank.and_then(|rank| rank.checked_sub(*start));
                        match index.filter(|index| *index < services.len()) {
                            Some(index) => index,
                            None => return Ok(error_response(&unknown_rank(*start, services.len()))),
                        }
                    }
                };
                services[index].handle(request).await
            }
            Self::Supervisor(services) => Ok(match request.uri().path() {
                "/health" => plain(200, ""),
                "/readyz" if services.iter().all(|service| service.is_ready()) => plain(200, ""),
                "/readyz" => plain(503, "{\"detail\":\"not all engines are ready\"}"),
                _ => plain(404, "{\"detail\":\"Not Found\"}"),
            }),
        }
    }
}

fn unknown_rank(start: usize, count: usize) -> ApiError {
    let message = format!(
        "data_parallel_rank is out of range: this server has the ranks {start} to {}",
        start + count - 1
    );
    ApiError::bad_request(message)
}
