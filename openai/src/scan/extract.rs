//! Turns the lexer's events into [`RequestFacts`]; only top-level members count.

use super::{
    BodyKind, ScanError,
    chat::Messages,
    prompt::Prompts,
    shape::{Shape, non_negative},
    texts::Texts,
};
use crate::{
    ModelField, RequestFacts, Span,
    json::{Container, Literal, Place, Sink},
};

/// Top-level members that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    CacheSalt,
    Tools,
    Messages,
    Prompt,
    /// Kept as the JSON of its value: `input`, `items`.
    Document,
    /// Anthropic's `messages` and `system`.
    Texts,
    System,
    /// `max_tokens` or `max_new_tokens` is a member of it.
    SamplingParams,
    /// `mm_hashes` is a member of it.
    Features,
    Other,
}

/// Most bytes of a string field that is no prompt.
const MAX_WORD: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Extractor {
    pub(super) kind: BodyKind,
    field: Field,
    depth: usize,
    pub(super) facts: RequestFacts,
    pub(super) max_tokens: Option<u64>,
    pub(super) max_completion_tokens: Option<u64>,
    /// Where the current model string starts.
    string_start: usize,
    word: Vec<u8>,
    /// The value being read is kept as raw JSON from this body offset on.
    raw_from: Option<usize>,
    pub(super) tools: Vec<u8>,
    pub(super) document: Option<Vec<u8>>,
    pub(super) messages: Option<Messages>,
    pub(super) prompts: Option<Prompts>,
    pub(super) texts: Option<Texts>,
    pub(super) system: Texts,
    /// The last member name inside the current object is the one that is read: `include_usage`, the cap on tokens, or
    /// `mm_hashes`.
    at_wanted: bool,
    /// Bytes that the body will have; 0 when unknown.
    expected: usize,
}

impl Extractor {
    pub(super) fn new(kind: BodyKind) -> Self {
        Self {
            kind,
            field: Field::Other,
            depth: 0,
            facts: RequestFacts::default(),
            max_tokens: None,
            max_completion_tokens: None,
            string_start: 0,
            word: Vec::new(),
            raw_from: None,
            tools: Vec::new(),
            document: None,
            messages: None,
            prompts: None,
            texts: None,
            system: Texts::default(),
            at_wanted: false,
            expected: 0,
        }
    }

    /// The body will have about so many bytes, most of them text.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    fn field_of(&self, key: &[u8]) -> Field {
        use BodyKind::{
            AnthropicMessages, ChatCompletions, Completions, Conversations, Embeddings, Images, Responses,
            SglangGenerate, VllmGenerate,
        };
        match (key, self.kind) {
            (b"model", _) => Field::Model,
            (b"stream", _) => Field::Stream,
            (b"stream_options", _) => Field::StreamOptions,
            (b"extra_key", SglangGenerate) => Field::CacheSalt,
            (b"cache_salt", kind) if kind != SglangGenerate => Field::CacheSalt,
            (b"max_tokens", ChatCompletions | Completions | AnthropicMessages)
            | (b"max_output_tokens", Responses) => Field::MaxTokens,
            (b"max_completion_tokens", ChatCompletions) => Field::MaxCompletionTokens,
            (b"tools", ChatCompletions | AnthropicMessages) => Field::Tools,
            (b"messages", AnthropicMessages) => Field::Texts,
            (b"system", AnthropicMessages) => Field::System,
            (b"sampling_params", VllmGenerate | SglangGenerate) => Field::SamplingParams,
            (b"features", VllmGenerate) => Field::Features,
            (b"messages", ChatCompletions) => Field::Messages,
            (b"prompt", Completions | Images)
            | (b"token_ids", VllmGenerate)
            | (b"input_ids", SglangGenerate) => Field::Prompt,
            (b"input", Responses | Embeddings) | (b"items", Conversations) => Field::Document,
            _ => Field::Other,
        }
    }

    /// A value of a top-level member begins; `shape` is what it is.
    fn member_starts(&mut self, shape: Shape, at: usize) -> Result<(), ScanError> {
        let refuse = |field, expected| {
            Err(ScanError::WrongType {
                field,
                expected,
                offset: at,
            })
        };
        match (self.field, shape) {
            (Field::Model, Shape::String | Shape::Null) => self.facts.model = None,
            (Field::Model, _) => return refuse("model", "a string"),
            (Field::Stream, Shape::Bool | Shape::Null) | (Field::Other, _) => {}
            (Field::Stream, _) => return refuse("stream", "true or false"),
            (Field::StreamOptions, Shape::Object | Shape::Null) => self.facts.include_usage = false,
            (Field::StreamOptions, _) => return refuse("stream_options", "an object"),
            (Field::CacheSalt, Shape::String | Shape::Null) => self.facts.cache_salt = None,
            (Field::CacheSalt, _) => return refuse("cache_salt", "a string"),
            (Field::MaxTokens | Field::SamplingParams, _) => self.max_tokens = None,
            (Field::MaxCompletionTokens, _) => self.max_completion_tokens = None,
            (Field::Tools, _) => {
                self.tools.clear();
                self.raw_from = shape.is_document().then_some(at);
            }
            (Field::Document, _) => {
                self.document = shape.is_document().then(Vec::new);
                self.raw_from = shape.is_document().then_some(at);
            }
            (Field::Messages, _) => {
                self.messages = (shape == Shape::Array).then(|| Messages::new(self.expected));
            }
            (Field::Texts, _) => self.texts = (shape == Shape::Array).then(Texts::default),
            (Field::System, _) => self.system = Texts::default(),
            (Field::Features, _) => self.facts.media_parts = 0,
            (Field::Prompt, _) => {
                let array_allowed = self.kind != BodyKind::Images;
                let possible = shape == Shape::String || (shape == Shape::Array && array_allowed);
                self.prompts = possible.then(Prompts::default);
            }
        }
        Ok(())
    }

    fn take_raw(&mut self, place: Place<'_>) {
        let Some(from) = self.raw_from else { return };
        let bytes = place.since(from);
        match self.field {
            Field::Tools => self.tools.extend_from_slice(bytes),
            _ => self.document.get_or_insert_default().extend_from_slice(bytes),
        }
    }

    /// A value ended; at depth 1 it was a member's.
    fn value_ended(&mut self, place: Place<'_>) {
        if self.depth == 1 && self.raw_from.is_some() {
            self.take_raw(place);
            self.raw_from = None;
        }
    }

    /// The document itself must be an object.
    fn top_level(&self, at: usize) -> Result<(), ScanError> {
        if self.depth > 0 {
            return Ok(());
        }
        Err(ScanError::WrongType {
            field: "request body",
            expected: "an object",
            offset: at,
        })
    }
}

impl Sink for Extractor {
    type Stop = ScanError;

    fn open(&mut self, container: Container, place: Place<'_>) -> Result<(), ScanError> {
        let depth = self.depth;
        if depth == 0 && container == Container::Array {
            self.top_level(place.at)?;
        }
        if depth == 1 {
            let shape = if container == Container::Object {
                Shape::Object
            } else {
                Shape::Array
            };
            self.member_starts(shape, place.at)?;
        } else if depth > 1 {
            match self.field {
                Field::Messages => {
                    if let Some(messages) = &mut self.messages {
                        messages.open(container, depth);
                    }
                }
                Field::Prompt => {
                    if let Some(prompts) = &mut self.prompts {
                        prompts.open(container, depth);
                    }
                }
                _ => {
                    if let Some(texts) = self.texts() {
                        texts.open(container, depth);
                    }
                }
            }
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, container: Container, place: Place<'_>) -> Result<(), ScanError> {
        let inner = self.depth;
        self.depth -= 1;
        match self.field {
            Field::Messages if inner > 2 => {
                if let Some(messages) = &mut self.messages {
                    messages.close(inner - 1);
                }
            }
            Field::Prompt if inner > 1 && container == Container::Array => {
                if let Some(prompts) = &mut self.prompts {
                    prompts.close_array(inner);
                }
            }
            _ => {}
        }
        self.value_ended(place);
        Ok(())
    }

    fn key(&mut self, key: &[u8]) -> Result<(), ScanError> {
        match (self.depth, self.field) {
            (1, _) => self.field = self.field_of(key),
            (2, Field::StreamOptions) => self.at_wanted = key == b"include_usage",
            (2, Field::SamplingParams) => {
                let wanted: &[u8] = match self.kind {
                    BodyKind::SglangGenerate => b"max_new_tokens",
                    _ => b"max_tokens",
                };
                self.at_wanted = key == wanted;
            }
            (2, Field::Features) => self.at_wanted = key == b"mm_hashes",
            (depth, Field::Messages) => {
                if let Some(messages) = &mut self.messages {
                    messages.key(key, depth);
                }
            }
            _ => {
                if let Some(texts) = self.texts() {
                    texts.key(key);
                }
            }
        }
        Ok(())
    }

    fn string_start(&mut self, place: Place<'_>) -> Result<bool, ScanError> {
        self.top_level(place.at)?;
        if self.depth == 1 {
            self.member_starts(Shape::String, place.at)?;
        }
        Ok(match self.field {
            Field::Model | Field::CacheSalt if self.depth == 1 => {
                self.string_start = place.at;
                self.word.clear();
                true
            }
            Field::Messages => {
                let depth = self.depth;
                self.messages.as_mut().is_some_and(|messages| {
                    if depth == 2 {
                        messages.not_a_message();
                    }
                    messages.string_start(depth)
                })
            }
            Field::Prompt => {
                let depth = self.depth;
                self.prompts
                    .as_mut()
                    .is_some_and(|prompts| prompts.string_start(depth))
            }
            Field::Features => {
                self.facts.media_parts += usize::from(self.at_wanted && self.depth == 4);
                false
            }
            _ => {
                let depth = self.depth;
                self.texts().is_some_and(|texts| texts.string_start(depth))
            }
        })
    }

    fn text(&mut self, piece: &[u8]) {
        match self.field {
            Field::Messages => {
                if let Some(messages) = &mut self.messages {
                    messages.text(piece);
                }
            }
            Field::Prompt => {
                if let Some(prompts) = &mut self.prompts {
                    prompts.text(piece);
                }
            }
            Field::Texts | Field::System => {
                if let Some(texts) = self.texts() {
                    texts.text(piece);
                }
            }
            _ => {
                let room = (MAX_WORD + 1).saturating_sub(self.word.len());
                self.word.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        }
    }

    fn string_end(&mut self, place: Place<'_>) -> Result<(), ScanError> {
        match self.field {
            Field::Model | Field::CacheSalt if self.depth == 1 => {
                if self.word.len() > MAX_WORD {
                    let field = if self.field == Field::Model {
                        "model"
                    } else {
                        "cache_salt"
                    };
                    let expected = "at most 65536 bytes long";
                    return Err(ScanError::WrongType {
                        field,
                        expected,
                        offset: self.string_start,
                    });
                }
                let value = String::from_utf8_lossy(&self.word).into_owned();
                if self.field == Field::Model {
                    self.facts.model = Some(ModelField {
                        value,
                        span: Some(Span {
                            start: self.string_start,
                            end: place.at,
                        }),
                    });
                } else {
                    self.facts.cache_salt = Some(value);
                }
            }
            Field::Messages => {
                if let Some(messages) = &mut self.messages {
                    messages.string_end();
                }
            }
            Field::Prompt => {
                if let Some(prompts) = &mut self.prompts {
                    prompts.string_end();
                }
            }
            _ => {
                if let Some(texts) = self.texts() {
                    texts.string_end();
                }
            }
        }
        self.value_ended(place);
        Ok(())
    }

    fn number(&mut self, text: &[u8], start: usize, place: Place<'_>) -> Result<(), ScanError> {
        self.top_level(start)?;
        if self.depth == 1 {
            self.member_starts(Shape::Number, start)?;
        }
        match self.field {
            Field::MaxTokens if self.depth == 1 => self.max_tokens = non_negative(text),
            Field::MaxCompletionTokens if self.depth == 1 => self.max_completion_tokens = non_negative(text),
            Field::Messages => self.message_scalar(),
            Field::Prompt => {
                let depth = self.depth;
                if let Some(prompts) = &mut self.prompts {
                    prompts.number(text, depth);
                }
            }
            Field::SamplingParams if self.depth == 2 && self.at_wanted => {
                self.max_tokens = non_negative(text);
            }
            _ => self.text_scalar(text),
        }
        self.value_ended(place);
        Ok(())
    }

    fn literal(&mut self, literal: Literal, start: usize, place: Place<'_>) -> Result<(), ScanError> {
        self.top_level(start)?;
        if self.depth == 1 {
            let shape = if literal == Literal::Null {
                Shape::Null
            } else {
                Shape::Bool
            };
            self.member_starts(shape, start)?;
        }
        match self.field {
            Field::Stream if self.depth == 1 => self.facts.stream = literal == Literal::True,
            Field::StreamOptions if self.depth == 2 && self.at_wanted => {
                self.facts.include_usage = literal == Literal::True;
            }
            Field::Messages => self.message_scalar(),
            Field::Prompt => {
                if let Some(prompts) = &mut self.prompts {
                    prompts.literal();
                }
            }
            _ => self.text_scalar(literal.bytes()),
        }
        self.value_ended(place);
        Ok(())
    }

    fn chunk_end(&mut self, place: Place<'_>) {
        if self.raw_from.is_some() {
            self.take_raw(place);
            self.raw_from = Some(place.at);
        }
    }
}

impl Extractor {
    /// Where the strings of the current member are collected.
    fn texts(&mut self) -> Option<&mut Texts> {
        match self.field {
            Field::Texts => self.texts.as_mut(),
            Field::System => Some(&mut self.system),
            _ => None,
        }
    }

    fn text_scalar(&mut self, text: &[u8]) {
        let depth = self.depth;
        if let Some(texts) = self.texts() {
            texts.scalar(text, depth);
        }
    }

    fn message_scalar(&mut self) {
        let depth = self.depth;
        if let Some(messages) = &mut self.messages {
            if depth == 2 {
                messages.not_a_message();
            }
            messages.not_text(depth);
        }
    }
}
