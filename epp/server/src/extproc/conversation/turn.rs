//! A request that waits: for its tokens, then for an endpoint, then for others to be put together with. Its body
//! stays where it is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use llmd_epp_api::Rejection;
use llmd_epp_core::exchange::Rendering;
use tokio::time::Sleep;

use super::Conversation;
use crate::extproc::answers::{self, Direction};
use crate::waiting::Place;

type Waited = (Place, Result<(), Rejection>);

/// What is left to do when the turn comes.
pub(super) struct Turn {
    stage: Stage,
    /// The last answer ends the body.
    pub(super) ends_body: bool,
    has_trailers: bool,
}

enum Stage {
    /// An engine is asked for the tokens.
    Rendering(Rendering),
    /// The pool has no endpoint, or others came before.
    Waiting(Pin<Box<dyn Future<Output = Waited> + Send>>),
    /// A plugin puts it together with others.
    Gathering(Pin<Box<Sleep>>),
}

impl Turn {
    /// Envoy has sent the trailers, which end the body.
    pub(super) fn trailers_follow(&mut self) {
        self.has_trailers = true;
    }
}

impl Conversation {
    /// What a complete request waits for, if for anything.
    pub(super) fn wait(&mut self, now: Instant, ends_body: bool) -> Result<Option<Turn>, Rejection> {
        let rendering = match &mut self.exchange {
            Some(exchange) => exchange.render(&self.body)?,
            None => None,
        };
        let stage = match rendering {
            Some(rendering) => Some(Stage::Rendering(rendering)),
            None => self.wait_for_endpoint(now)?,
        };
        Ok(stage.map(|stage| Turn {
            stage,
            ends_body,
            has_trailers: false,
        }))
    }

    /// Takes a place, where the pool is empty.
    fn wait_for_endpoint(&mut self, now: Instant) -> Result<Option<Stage>, Rejection> {
        let (Some(room), Some(exchange)) = (&self.shared.waiting, &mut self.exchange) else {
            return self.gather(now);
        };
        if room.is_open() {
            return self.gather(now);
        }
        if exchange.request().is_none() {
            exchange.take_in()?;
        }
        let Some(request) = exchange.request() else {
            return Ok(None);
        };
        let place = room
            .place(request)
            .map_err(|refusal| exchange.rejected(refusal))?;
        let Some(mut place) = place else {
            return self.gather(now);
        };
        Ok(Some(Stage::Waiting(Box::pin(async move {
            let outcome = place.turn().await;
            (place, outcome)
        }))))
    }

    /// Lets plugins put a request together with others, where one does that.
    fn gather(&mut self, now: Instant) -> Result<Option<Stage>, Rejection> {
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.gathers()) else {
            return Ok(None);
        };
        let due = exchange.gather(now, &(self.shared.snapshots)())?;
        Ok(due.map(|due| Stage::Gathering(Box::pin(tokio::time::sleep_until(due.into())))))
    }

    /// Goes on with a request whose waiting is over. Pending when none waits, or it still does.
    pub(in crate::extproc) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(turn) = &mut self.turn else {
            return Poll::Pending;
        };
        let now = Instant::now();
        let mut place = None;
        let next = match &mut turn.stage {
            Stage::Rendering(rendering) => {
                let tokens = ready!(rendering.as_mut().poll(cx));
                if let Some(exchange) = &mut self.exchange {
                    exchange.rendered(tokens);
                }
                self.wait_for_endpoint(now)
            }
            Stage::Waiting(waiting) => {
                let (had, outcome) = ready!(waiting.as_mut().poll(cx));
                // Kept until it is scheduled: then it is the next one's turn.
                place = Some(had);
                match (outcome, &mut self.exchange) {
                    (Ok(()), _) => self.gather(now),
                    (Err(refusal), Some(exchange)) => Err(exchange.rejected(refusal)),
                    (Err(refusal), None) => Err(refusal),
                }
            }
            Stage::Gathering(due) => {
                ready!(due.as_mut().poll(cx));
                Ok(None)
            }
        };
        let Some(mut turn) = self.turn.take() else {
            return Poll::Pending;
        };
        let outcome = match next {
            Ok(Some(stage)) => {
                turn.stage = stage;
                self.turn = Some(turn);
                return Poll::Ready(());
            }
            Ok(None) => self.route_request(now, turn.ends_body),
            Err(rejection) => Err(rejection),
        };
        drop(place);
        match outcome {
            Ok(()) if turn.has_trailers => self.answers.push_back(answers::trailers(Direction::Request)),
            Ok(()) => {}
            Err(rejection) => self.reject(now, &rejection),
        }
        Poll::Ready(())
    }
}
