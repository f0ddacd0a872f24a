//! Collects the text of chat messages in the order of the estimate backend: role, then text, per message.

use crate::json::Container;
use crate::media::{MediaPart, MediaReader, Modality};

/// What a string inside `messages` is, once its name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Role,
    Content,
    BlockType,
    BlockText,
    /// A member that holds a medium: its URL, or an object with it.
    Medium(Modality),
    /// URL or data of a medium.
    MediumContent,
    /// Format of audio.
    MediumFormat,
    Ignored,
}

/// State of the `messages` array. Depths are those of the whole document: the array is at 2,
/// a message at 3, a content array at 4, a block at 5.
#[derive(Debug)]
pub(super) struct Messages {
    /// Role and text of all messages.
    text: Vec<u8>,
    media_parts: usize,
    media: Vec<MediaPart>,
    /// The medium of the current block.
    medium: Option<MediaReader>,
    /// The object being read is that of a medium.
    in_medium: bool,
    /// A message object was seen.
    seen: bool,
    /// Something else than a message object was seen.
    spoiled: bool,
    /// Where the current message begins in `text`.
    message_start: usize,
    role_len: usize,
    /// Media parts before the current content.
    media_before: usize,
    /// Those of them that were read.
    read_before: usize,
    /// Where the current block's text begins.
    block_start: usize,
    block_is_media: bool,
    /// Member that the next value belongs to.
    part: Part,
    /// The content array is the one being read (not an array of some other member).
    in_content: bool,
    /// Decoded role or block type, which are short.
    word: Vec<u8>,
    current: Part,
}

impl Messages {
    /// `expected`: bytes of text that will come; 0 when unknown.
    pub(super) fn new(expected: usize) -> Self {
        Self {
            text: Vec::with_capacity(expected),
            media_parts: 0,
            media: Vec::new(),
            medium: None,
            in_medium: false,
            seen: false,
            spoiled: false,
            message_start: 0,
            role_len: 0,
            media_before: 0,
            read_before: 0,
            block_start: 0,
            block_is_media: false,
            part: Part::Ignored,
            in_content: false,
            word: Vec::new(),
            current: Part::Ignored,
        }
    }

    /// At least one message object, and nothing but message objects.
    pub(super) fn is_valid(&self) -> bool {
        self.seen && !self.spoiled
    }

    /// A value that is no object stands where a message must.
    pub(super) fn not_a_message(&mut self) {
        self.spoiled = true;
    }

    /// Text, number of media, and those that were read.
    pub(super) fn into_text(self) -> (Vec<u8>, usize, Vec<MediaPart>) {
        (self.text, self.media_parts, self.media)
    }

    pub(super) fn open(&mut self, container: Container, depth: usize) {
        match (depth, container) {
            (2, Container::Object) => {
                self.seen = true;
                self.message_start = self.text.len();
                self.role_len = 0;
                self.media_before = self.media_parts;
                self.read_before = self.media.len();
                self.part = Part::Ignored;
            }
            (2, Container::Array) => self.not_a_message(),
            (3, _) => {
                self.in_content = self.part == Part::Content && container == Container::Array;
                self.not_text(depth);
            }
            (5, _) => {
                self.in_medium = matches!(self.part, Part::Medium(_)) && container == Container::Object;
                self.not_text(depth);
            }
            (4, _) if self.in_content => {
                self.block_start = self.text.len();
                self.block_is_media = false;
                self.medium = None;
                self.part = Part::Ignored;
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, depth: usize) {
        match depth {
            3 => self.in_content = false,
            4 if self.in_content && self.block_is_media => {
                self.text.truncate(self.block_start);
                self.media_parts += 1;
                let medium = self.medium.take();
                self.media
                    .extend(medium.map(|medium| medium.finish(self.block_start)));
            }
            5 => self.in_medium = false,
            _ => {}
        }
    }

    pub(super) fn key(&mut self, key: &[u8], depth: usize) {
        self.part = match (depth, key) {
            (3, b"role") => Part::Role,
            (3, b"content") => Part::Content,
            (5, b"type") if self.in_content => Part::BlockType,
            (5, b"text") if self.in_content => Part::BlockText,
            (5, b"image_url") if self.in_content => Part::Medium(Modality::Image),
            (5, b"video_url") if self.in_content => Part::Medium(Modality::Video),
            (5, b"input_audio") if self.in_content => Part::Medium(Modality::Audio),
            (6, b"url" | b"data") if self.in_medium => Part::MediumContent,
            (6, b"format") if self.in_medium => Part::MediumFormat,
            _ => Part::Ignored,
        };
        if let Part::Medium(modality) = self.part {
            self.medium = Some(MediaReader::new(modality));
        }
    }

    /// A string value begins; `true` when its text is wanted.
    pub(super) fn string_start(&mut self, depth: usize) -> bool {
        self.current = match (depth, self.part) {
            (3, part @ (Part::Role | Part::Content)) | (5, part @ (Part::BlockType | Part::BlockText)) => {
                part
            }
            (4, _) if self.in_content => Part::BlockText,
            (5, Part::Medium(_)) => Part::MediumContent,
            (6, part @ (Part::MediumContent | Part::MediumFormat)) => part,
            _ => Part::Ignored,
        };
        match self.current {
            Part::Content => self.drop_content(),
            Part::Role | Part::BlockType => self.word.clear(),
            Part::BlockText if depth == 5 => self.text.truncate(self.block_start),
            Part::MediumContent => self.medium.iter_mut().for_each(MediaReader::restart),
            Part::MediumFormat => self.medium.iter_mut().for_each(MediaReader::format_starts),
            _ => {}
        }
        self.current != Part::Ignored
    }

    pub(super) fn text(&mut self, piece: &[u8]) {
        match self.current {
            Part::Content | Part::BlockText => self.text.extend_from_slice(piece),
            Part::Role | Part::BlockType => self.word.extend_from_slice(piece),
            Part::MediumContent => self.medium.iter_mut().for_each(|medium| medium.content(piece)),
            Part::MediumFormat => self.medium.iter_mut().for_each(|medium| medium.format(piece)),
            Part::Medium(_) | Part::Ignored => {}
        }
    }

    pub(super) fn string_end(&mut self) {
        match self.current {
            Part::Role => self.set_role(),
            Part::BlockType => {
                self.block_is_media = !matches!(
                    self.word.as_slice(),
                    b"text" | b"input_text" | b"output_text" | b"refusal"
                );
            }
            _ => {}
        }
        self.current = Part::Ignored;
    }

    /// A value that is no string takes the place of what its member said before (`null` content is
    /// empty content).
    pub(super) fn not_text(&mut self, depth: usize) {
        match (depth, self.part) {
            (3, Part::Content) => self.drop_content(),
            (3, Part::Role) => {
                self.word.clear();
                self.set_role();
            }
            (5, Part::BlockText) if self.in_content => self.text.truncate(self.block_start),
            (5, Part::BlockType) if self.in_content => self.block_is_media = false,
            _ => {}
        }
    }

    /// The role goes before the content, also when the body has it after.
    fn set_role(&mut self) {
        let old = self.message_start..self.message_start + self.role_len;
        for medium in &mut self.media[self.read_before..] {
            medium.at = medium.at - self.role_len + self.word.len();
        }
        self.role_len = self.word.len();
        if old.end == self.text.len() {
            self.text.truncate(old.start);
            self.text.extend_from_slice(&self.word);
        } else {
            self.text.splice(old, self.word.iter().copied());
        }
    }

    /// A second `content` takes the place of the first.
    fn drop_content(&mut self) {
        self.text.truncate(self.message_start + self.role_len);
        self.media_parts = self.media_before;
        self.media.truncate(self.read_before);
    }
}
