//! The tokens of a prompt, asked of an engine before the request is decided.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use llmd_epp_api::{Rejection, RenderBackend, TokenizedPrompt};
use llmd_openai::{BodyKind, Prompt, splice_model};

use super::{Exchange, State, path_of};

const CHAT_RENDER: &str = "/v1/chat/completions/render";
const COMPLETIONS_RENDER: &str = "/v1/completions/render";

/// What an engine is asked.
#[derive(Debug)]
pub struct RenderAsk {
    /// Whom to ask, and how long to wait.
    pub backend: Arc<RenderBackend>,
    /// Path of the engine's URL.
    pub path: &'static str,
    /// The request's body with the backend's model.
    pub body: Vec<Bytes>,
    /// Prompts in the body.
    pub prompts: usize,
    /// The body has images, audio or video.
    pub has_media: bool,
}

/// The answer; `None` when there is none in time.
pub type Rendering = Pin<Box<dyn Future<Output = Option<TokenizedPrompt>> + Send>>;

/// Asks engines; the shell's part.
pub trait Render: Send + Sync {
    /// Begins to ask. Ends within the backend's time.
    fn render(&self, ask: RenderAsk) -> Rendering;
}

impl Exchange {
    /// The request is complete, with this body: asks an engine for its tokens, where one is configured. Bodies
    /// that hold token ids, or are of a kind that engines do not render, go on as they are. What comes of it is
    /// told with [`Self::rendered`].
    ///
    /// # Errors
    /// As [`Self::take_in`].
    pub fn render(&mut self, body: &[Bytes]) -> Result<Option<Rendering>, Rejection> {
        let (Some(backend), Some(render)) = (
            self.pipeline.scheduler.render_backend(),
            self.epp.render.get().cloned(),
        ) else {
            return Ok(None);
        };
        if self.intake.is_some() {
            self.take_in()?;
        }
        Ok(self.ask(backend, body).map(|ask| render.render(ask)))
    }

    fn ask(&self, backend: Arc<RenderBackend>, body: &[Bytes]) -> Option<RenderAsk> {
        let State::Parsed {
            request: Some(request),
            ..
        } = &self.state
        else {
            return None;
        };
        if request.tokens.is_some() || !request.facts.prompts.iter().any(Prompt::is_text) {
            return None;
        }
        let claim = self.pipeline.parsers.resolve(path_of(&request.headers))?;
        let path = match claim.body? {
            BodyKind::ChatCompletions => CHAT_RENDER,
            BodyKind::Completions => COMPLETIONS_RENDER,
            _ => return None,
        };
        let span = request.facts.model.as_ref()?.span?;
        let plain = self.decoded.clone().map(|decoded| vec![decoded]);
        let body = plain.as_deref().unwrap_or(body);
        Some(RenderAsk {
            path,
            body: splice_model(body, span, &backend.model),
            prompts: request.facts.prompts.len(),
            has_media: request.facts.media_parts > 0,
            backend,
        })
    }

    /// The tokens that [`Self::render`] was answered with.
    pub fn rendered(&mut self, tokens: Option<TokenizedPrompt>) {
        if let State::Parsed {
            request: Some(request),
            ..
        } = &mut self.state
        {
            request.tokens = tokens;
        }
    }
}
