//! From messages or prompt fields to token ids.

use std::sync::Arc;

use super::ApiError;
use super::request::{Content, Kind, MAX_CHOICES, Message, Part, PromptField, Request};
use crate::tokens;
use xxhash_rust::xxh64::xxh64;

/// A prompt ready for the engine.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids, at least one.
    pub tokens: Arc<[u32]>,
    /// What echo mode says: the last user message, or the whole prompt.
    pub echo: String,
    /// The answer has begun already (`continue_final_message`).
    pub begun: Option<Begun>,
    /// Hashes of its images, videos and audio.
    pub media: Vec<String>,
}

/// Parts of a message that an encoder takes.
const MEDIA: [&str; 4] = ["image_url", "video_url", "audio_url", "input_audio"];

/// The beginning of an answer, sent back to be continued.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Its text.
    pub text: String,
    /// Token ids of the prompt it answers.
    pub prompt: Arc<[u32]>,
}

/// The prompts of a request: one for chat, one or more for completions.
pub fn prompts(request: &mut Request, kind: Kind) -> Result<Vec<Prompt>, ApiError> {
    let prompts = match kind {
        Kind::Chat => vec![chat(&request.messages.take().unwrap_or_default(), request)?],
        Kind::Completion => match request.prompt.take() {
            Some(PromptField::Text(text)) => vec![from_text(text)],
            Some(PromptField::Tokens(ids)) => vec![from_ids(ids)],
            Some(PromptField::Texts(texts)) => texts.into_iter().map(from_text).collect(),
            Some(PromptField::TokenLists(lists)) => lists.into_iter().map(from_ids).collect(),
            None => Vec::new(),
        },
    };
    if prompts.is_empty() || prompts.iter().any(|prompt| prompt.tokens.is_empty()) {
        let param = if kind == Kind::Chat { "messages" } else { "prompt" };
        return Err(ApiError::field(param, "The decoder prompt cannot be empty"));
    }
    if prompts.len() * request.n.unwrap_or(1) > MAX_CHOICES {
        return Err(ApiError::field(
            "prompt",
            format!("prompts times n must be at most {MAX_CHOICES}."),
        ));
    }
    Ok(prompts)
}

fn from_text(text: String) -> Prompt {
    Prompt {
        tokens: tokens::encode(&text).into(),
        echo: text,
        begun: None,
        media: Vec::new(),
    }
}

fn from_ids(ids: Vec<u32>) -> Prompt {
    let mut echo = String::new();
    for id in &ids {
        if !echo.is_empty() {
            echo.push(' ');
        }
        echo.push_str(tokens::word(*id));
    }
    Prompt {
        tokens: ids.into(),
        echo,
        begun: None,
        media: Vec::new(),
    }
}

/// A plain chat template: a mark with the role, the text, and a mark that invites the answer.
fn chat(messages: &[Message], request: &Request) -> Result<Prompt, ApiError> {
    if messages.is_empty() {
        return Ok(Prompt {
            tokens: Arc::default(),
            echo: String::new(),
            begun: None,
            media: Vec::new(),
        });
    }
    let mut rendered = String::new();
    let mut echo = String::new();
    let mut media = Vec::new();
    for tool in request.tools.iter().flatten() {
        rendered.push_str("<|tool|>\n");
        rendered.push_str(tool.get());
        rendered.push('\n');
    }
    let (messages, begun) = match messages.split_last() {
        Some((last, earlier)) if request.continue_final_message => (earlier, Some(last)),
        _ => (messages, None),
    };
    for message in messages {
        rendered.push_str("<|");
        rendered.push_str(&message.role);
        rendered.push_str("|>\n");
        let start = rendered.len();
        match &message.content {
            Some(Content::Text(text)) => rendered.push_str(text),
            Some(Content::Parts(parts)) => {
                for (index, part) in parts.iter().enumerate() {
                    let medium;
                    let text = match part.text.as_deref() {
                        Some(text) if part.r#type == "text" || part.r#type == "input_text" => text,
                        _ => {
                            let hash = hash_of(part)?;
                            medium = format!("<|{} {hash}|>", part.r#type);
                            media.push(hash);
                            &medium
                        }
                    };
                    if index > 0 {
                        rendered.push('\n');
                    }
                    rendered.push_str(text);
                }
            }
            None => {}
        }
        if message.role == "user" {
            echo.clear();
            echo.push_str(&rendered[start..]);
        }
        for call in message.tool_calls.iter().flatten() {
            rendered.push_str(call.get());
        }
        rendered.push('\n');
    }
    rendered.push_str("<|assistant|>\n");
    let prompt: Arc<[u32]> = tokens::encode(&rendered).into();
    let Some(Message {
        content: Some(Content::Text(text)),
        ..
    }) = begun
    else {
        return Ok(Prompt {
            tokens: prompt,
            echo,
            begun: None,
            media,
        });
    };
    rendered.push_str(text);
    Ok(Prompt {
        tokens: tokens::encode(&rendered).into(),
        echo,
        begun: Some(Begun {
            text: text.clone(),
            prompt,
        }),
        media,
    })
}

/// Hash of a medium: equal ones are encoded once.
fn hash_of(part: &Part) -> Result<String, ApiError> {
    let kind = part.r#type.as_str();
    let medium = part.rest.get(kind).filter(|_| MEDIA.contains(&kind));
    let medium = medium.ok_or_else(|| {
        let message = format!("content part `{kind}` is not supported, or lacks a member of that name");
        ApiError::field("messages", message)
    })?;
    Ok(format!("{:016x}", xxh64(medium.to_string().as_bytes(), 0)))
}
