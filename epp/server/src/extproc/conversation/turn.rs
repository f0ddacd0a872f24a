//! A request that waits, for an endpoint or for others to be put together with: its body stays where it is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use llmd_epp_api::Rejection;

use super::Conversation;
use crate::extproc::answers::{self, Direction};
use crate::waiting::Place;

type Waited = (Option<Place>, Result<(), Rejection>);

/// What is left to do when the turn comes.
pub(super) struct Turn {
    waiting: Pin<Box<dyn Future<Output = Waited> + Send>>,
    /// The last answer ends the body.
    ends_body: bool,
    has_trailers: bool,
    /// It was put together with others; only then it may be scheduled.
    is_gathered: bool,
}

impl Turn {
    /// Envoy has sent the trailers, which end the body.
    pub(super) fn trailers_follow(&mut self) {
        self.has_trailers = true;
    }
}

impl Conversation {
    /// Takes a place for a complete request, where it has to wait.
    pub(super) fn wait(&mut self, ends_body: bool) -> Result<Option<Turn>, Rejection> {
        let (Some(room), Some(exchange)) = (&self.shared.waiting, &mut self.exchange) else {
            return Ok(None);
        };
        if room.is_open() {
            return Ok(None);
        }
        exchange.take_in()?;
        let Some(request) = exchange.request() else {
            return Ok(None);
        };
        let place = room
            .place(request)
            .map_err(|refusal| exchange.rejected(refusal))?;
        Ok(place.map(|mut place| Turn {
            waiting: Box::pin(async move {
                let outcome = place.turn().await;
                (Some(place), outcome)
            }),
            ends_body,
            has_trailers: false,
            is_gathered: false,
        }))
    }

    /// Lets plugins put a complete request together with others, where one does that.
    pub(super) fn gather(&mut self, now: Instant, ends_body: bool) -> Result<Option<Turn>, Rejection> {
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.gathers()) else {
            return Ok(None);
        };
        let due = exchange.gather(now, &(self.shared.snapshots)())?;
        Ok(due.map(|due| Turn {
            waiting: Box::pin(async move {
                tokio::time::sleep_until(due.into()).await;
                (None, Ok(()))
            }),
            ends_body,
            has_trailers: false,
            is_gathered: true,
        }))
    }

    /// Goes on with a request whose waiting is over. Pending when none waits, or it still does.
    pub(in crate::extproc) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &mut self.turn else {
            return Poll::Pending;
        };
        let (place, outcome) = ready!(turn.waiting.as_mut().poll(cx));
        let Turn {
            ends_body,
            has_trailers,
            is_gathered,
            ..
        } = *turn;
        self.turn = None;
        let now = Instant::now();
        let outcome = match outcome {
            Ok(()) if is_gathered => self.route_request(now, ends_body),
            Ok(()) => match self.gather(now, ends_body) {
                Ok(Some(turn)) => {
                    self.turn = Some(Turn { has_trailers, ..turn });
                    return Poll::Ready(());
                }
                Ok(None) => self.route_request(now, ends_body),
                Err(rejection) => Err(rejection),
            },
            Err(refusal) => Err(match &mut self.exchange {
                Some(exchange) => exchange.rejected(refusal),
                None => refusal,
            }),
        };
        // The next one's turn.
        drop(place);
        match outcome {
            Ok(()) if has_trailers => self.answers.push_back(answers::trailers(Direction::Request)),
            Ok(()) => {}
            Err(rejection) => self.reject(now, &rejection),
        }
        Poll::Ready(())
    }
}
