//! Collects the prompts of a completions body: a string, strings, token ids, or lists of token ids.

use crate::{Prompt, PromptInput, json::Container};

/// State of the `prompt` member. Depths are those of the whole document.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    complete: Vec<Prompt>,
    text: Vec<u8>,
    tokens: Vec<u32>,
    /// Something a prompt cannot contain was seen, or two shapes were mixed.
    mixed: bool,
    shape: Option<Shape>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Tokens,
    TokenLists,
}

impl Prompts {
    pub(super) fn string_start(&mut self, depth: usize) -> bool {
        self.text = Vec::new();
        if depth > 2 {
            self.mixed = true;
            return false;
        }
        self.take_shape(Shape::Text);
        true
    }

    pub(super) fn text(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
    }

    pub(super) fn string_end(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.complete.push(Prompt {
            input: PromptInput::Text(text),
        });
    }

    /// A number; token ids are integers of 32 bits.
    pub(super) fn number(&mut self, text: &[u8], depth: usize) {
        self.take_shape(if depth == 2 {
            Shape::Tokens
        } else {
            Shape::TokenLists
        });
        let token = std::str::from_utf8(text)
            .ok()
            .and_then(|digits| digits.parse().ok());
        match token {
            Some(token) if depth == 2 || depth == 3 => self.tokens.push(token),
            _ => self.mixed = true,
        }
    }

    /// A container opens inside the prompt's array; only lists of token ids may be there.
    pub(super) fn open(&mut self, container: Container, depth: usize) {
        if container == Container::Array && depth == 2 {
            self.take_shape(Shape::TokenLists);
        } else {
            self.mixed = true;
        }
    }

    /// The array at `depth` closed: a list of token ids is a prompt.
    pub(super) fn close_array(&mut self, depth: usize) {
        let is_prompt = match self.shape {
            Some(Shape::Tokens) => depth == 2,
            Some(Shape::TokenLists) => depth == 3,
            _ => false,
        };
        if is_prompt {
            let tokens = std::mem::take(&mut self.tokens);
            self.complete.push(Prompt {
                input: PromptInput::Tokens(tokens),
            });
        }
    }

    pub(super) fn literal(&mut self) {
        self.mixed = true;
    }

    /// The prompts, or `None` when the member was no prompt.
    pub(super) fn into_prompts(self) -> Option<Vec<Prompt>> {
        (!self.mixed && !self.complete.is_empty()).then_some(self.complete)
    }

    fn take_shape(&mut self, shape: Shape) {
        self.mixed |= self.shape.is_some_and(|known| known != shape);
        self.shape = Some(shape);
    }
}
