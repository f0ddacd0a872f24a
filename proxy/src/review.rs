//! The flight's look at the beginning of an answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::relay::Started;
use crate::reply::LocalReply;
use crate::route::{Flight, Plan, Review};

/// Most of an answer that a flight can look at.
const MOST: usize = 64 << 10;

/// What a flight said.
pub(crate) enum Reviewed {
    Passed(Box<Started>),
    Instead(Plan),
}

/// Shows `flight` the beginning of an answer, and more of it as long as it asks, there is some, and it comes without
/// a pause of `idle`.
pub(crate) async fn review<F: Flight>(
    flight: &mut F,
    mut started: Started,
    idle: Duration,
) -> Result<Reviewed, LocalReply> {
    loop {
        let beginning = started.first.as_ref().and_then(Frame::data_ref);
        let beginning = beginning.cloned().unwrap_or_default();
        match flight.review(&started.head, &beginning).await? {
            Review::Instead(plan) => return Ok(Reviewed::Instead(plan)),
            Review::More if beginning.len() < MOST => {}
            Review::Pass | Review::More => return Ok(Reviewed::Passed(Box::new(started))),
        }
        match timeout(idle, started.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                // Trailers end a body; answers of which a flight wants more have none.
                let more = frame.into_data().unwrap_or_default();
                started.first = Some(Frame::data(joined(&beginning, &more)));
            }
            // The end comes again when the answer is relayed, an error would not.
            Ok(Some(Err(error))) => {
                let message = format!("{} broke off its answer: {error}", started.target);
                return Err(LocalReply::error(StatusCode::BAD_GATEWAY, &message));
            }
            Ok(None) | Err(_) => return Ok(Reviewed::Passed(Box::new(started))),
        }
    }
}

fn joined(beginning: &Bytes, more: &Bytes) -> Bytes {
    let mut all = BytesMut::with_capacity(beginning.len() + more.len());
    all.extend_from_slice(beginning);
    all.extend_from_slice(more);
    all.freeze()
}
