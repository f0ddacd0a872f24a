//! Plans an answer: its tokens, its text token by token, and how it ends.

use std::sync::Arc;

use super::prompt::Prompt;
use super::request::Request;
use crate::args::Mode;
use crate::engine::FinishReason;
use crate::tokens;

/// Why an answer stopped (`stop_reason`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// This text came up.
    Text(String),
    /// This token came up.
    Token(u32),
}

/// One planned answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Tokens the engine will produce.
    pub tokens: Arc<[u32]>,
    /// The text they make, a stop text left out.
    pub text: String,
    /// `ends[i]`: where token `i` ends in `text`.
    pub ends: Vec<usize>,
    /// How it ends.
    pub finish: FinishReason,
    /// What stopped it, if not the end of the text.
    pub stop_reason: Option<StopReason>,
}

impl Answer {
    /// Plans the answer to `prompt`, at most `cap` tokens; `choice` tells the answers of one request apart.
    ///
    /// An answer that this simulator began continues word for word; a foreign beginning is a prompt like any other.
    pub fn plan(mode: Mode, seed: u64, request: &Request, prompt: &Prompt, choice: u64, cap: usize) -> Self {
        if let Some(begun) = &prompt.begun {
            let sent = tokens::pieces(&begun.text).count();
            let whole = Prompt {
                tokens: Arc::clone(&begun.prompt),
                echo: prompt.echo.clone(),
                begun: None,
                media: Vec::new(),
            };
            let least = request.min_tokens + sent;
            let whole = Self::draft(mode, seed, request, &whole, choice, cap + sent, least);
            if let Some(rest) = whole.after(&begun.text) {
                return rest;
            }
        }
        Self::draft(mode, seed, request, prompt, choice, cap, request.min_tokens)
    }

    fn draft(
        mode: Mode,
        seed: u64,
        request: &Request,
        prompt: &Prompt,
        choice: u64,
        cap: usize,
        least: usize,
    ) -> Self {
        let mut draft = Draft::default();
        let natural_end = match mode {
            Mode::Echo => draft.echo(&prompt.echo, cap, request.ignore_eos, least),
            Mode::Random => {
                let own = request.seed.map_or(0, |seed| seed as u64 ^ 0x5851_F42D_4C95_7F2D);
                let prompt_hash = crate::engine::hash::block(seed ^ own, prompt.tokens.iter().copied());
                draft.random(
                    &mut fastrand::Rng::with_seed(prompt_hash.wrapping_add(choice)),
                    cap,
                    request.ignore_eos,
                    least,
                )
            }
        };
        draft.finish(request, natural_end, least)
    }

    /// What follows `begun`, if the answer begins with it, ends a token there and goes on.
    fn after(&self, begun: &str) -> Option<Self> {
        if !self.text.starts_with(begun) {
            return None;
        }
        let sent = self.ends.iter().rposition(|end| *end == begun.len())? + 1;
        if sent == self.tokens.len() {
            return None;
        }
        Some(Self {
            tokens: self.tokens[sent..].into(),
            text: self.text[begun.len()..].to_owned(),
            ends: self.ends[sent..].iter().map(|end| end - begun.len()).collect(),
            finish: self.finish,
            stop_reason: self.stop_reason.clone(),
        })
    }

    /// The text of tokens `from..to`.
    pub fn piece(&self, from: usize, to: usize) -> &str {
        let start = if from == 0 { 0 } else { self.ends[from - 1] };
        let end = if to == 0 { 0 } else { self.ends[to - 1] };
        &self.text[start..end]
    }
}

#[derive(Default)]
struct Draft {
    tokens: Vec<u32>,
    text: String,
    ends: Vec<usize>,
}

impl Draft {
    fn push(&mut self, piece: &str) {
        self.tokens.push(tokens::id(piece));
        self.text.push_str(piece);
        self.ends.push(self.text.len());
    }

    /// Repeats the prompt (over and over when the end is to be ignored); true if it ends by itself.
    fn echo(&mut self, text: &str, cap: usize, ignore_end: bool, least: usize) -> bool {
        let text = if text.is_empty() { tokens::WORDS[0] } else { text };
        loop {
            for piece in tokens::pieces(text) {
                if self.tokens.len() == cap {
                    return false;
                }
                self.push(piece);
            }
            if !ignore_end && self.tokens.len() >= least {
                return true;
            }
        }
    }

    /// Sentences of common words; true if they end by themselves.
    fn random(&mut self, random: &mut fastrand::Rng, cap: usize, ignore_end: bool, least: usize) -> bool {
        let drawn = if ignore_end {
            cap
        } else {
            random.usize(16..=256).max(least)
        };
        let mut piece = String::with_capacity(8);
        let mut left = random.usize(6..=14);
        while self.tokens.len() < drawn.min(cap) {
            piece.clear();
            if left == 0 {
                piece.push('.');
                left = random.usize(6..=14);
            } else {
                if !self.tokens.is_empty() {
                    piece.push(' ');
                }
                piece.push_str(tokens::WORDS[random.usize(0..tokens::WORDS.len())]);
                left -= 1;
            }
            self.push(&piece);
        }
        !ignore_end && drawn <= cap
    }

    fn finish(mut self, request: &Request, natural_end: bool, least: usize) -> Answer {
        let mut finish = if natural_end {
            FinishReason::Stop
        } else {
            FinishReason::Length
        };
        let mut stop_reason = None;
        let stops = request.stop_texts();
        if !stops.is_empty() || !request.stop_token_ids.is_empty() {
            for index in least.saturating_sub(1)..self.tokens.len() {
                let token = self.tokens[index];
                let end = self.ends[index];
                if request.stop_token_ids.contains(&token) {
                    stop_reason = Some(StopReason::Token(token));
                    let start = if index == 0 { 0 } else { self.ends[index - 1] };
                    self.cut(
                        index + 1,
                        if request.include_stop_str_in_output {
                            end
                        } else {
                            start
                        },
                    );
                } else if let Some((at, stop)) = first_stop(&self.text[..end], stops, index, &self.ends) {
                    stop_reason = Some(StopReason::Text(stop.to_owned()));
                    self.cut(
                        index + 1,
                        if request.include_stop_str_in_output {
                            at + stop.len()
                        } else {
                            at
                        },
                    );
                } else {
                    continue;
                }
                finish = FinishReason::Stop;
                break;
            }
        }
        Answer {
            tokens: self.tokens.into(),
            text: self.text,
            ends: self.ends,
            finish,
            stop_reason,
        }
    }

    /// Keeps `tokens` tokens and `bytes` of text; text of kept tokens beyond that is empty.
    fn cut(&mut self, tokens: usize, bytes: usize) {
        self.tokens.truncate(tokens);
        self.ends.truncate(tokens);
        self.text.truncate(bytes);
        for end in &mut self.ends {
            *end = (*end).min(bytes);
        }
    }
}

/// The earliest stop text that token `index` completes.
fn first_stop<'a>(text: &str, stops: &'a [String], index: usize, ends: &[usize]) -> Option<(usize, &'a str)> {
    let token_start = if index == 0 { 0 } else { ends[index - 1] };
    stops
        .iter()
        .filter_map(|stop| {
            let mut from = token_start.saturating_sub(stop.len() - 1);
            while !text.is_char_boundary(from) {
                from += 1;
            }
            text[from..]
                .find(stop.as_str())
                .map(|at| (from + at, stop.as_str()))
        })
        .min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests;
