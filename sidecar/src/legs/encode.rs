//! Encoder legs: each image, video or sound of a chat is encoded by an encode engine first.
//!
//! One request per item, with the item alone as its message and one token to answer. With `ec-nixl` the answers say in
//! `ec_transfer_params` where the embeddings are, by hash of the item; the next leg is told all of them. With
//! `ec-example` the engines share a storage and nothing is told. Source: llm-d-router
//! `pkg/sidecar/proxy/connector_ec_{common,nixl}.go`.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Uri, request};
use llmd_openai::{Edit, EditError, edit, header};
use llmd_proxy::Caller;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Api;
use crate::hosts;

/// Most bytes of an encode engine's answer.
const LONGEST: usize = 16 << 20;
/// Items of one request that are encoded at the same time.
const AT_ONCE: usize = 16;
const PATH: &str = "/v1/chat/completions";
/// Members of the next leg: where the embeddings are, and that a cached prompt does not skip it.
const PARAMS: &str = "ec_transfer_params";
const THRESHOLD: &str = "cache_hit_threshold";

/// How embeddings reach the next engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EcConnector {
    /// By NIXL; engines are told where they are.
    Nixl,
    /// By a storage that engines share.
    Example,
}

impl EcConnector {
    /// Name in flags and spans.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nixl => "ec-nixl",
            Self::Example => "ec-example",
        }
    }
}

/// Why the items of a request are not encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the request body cannot be split into its media: {0}")]
    Body(#[from] EditError),
    #[error("no encode engine took item {item}; the last one, {host}, said: {cause}")]
    Failed {
        item: usize,
        host: String,
        cause: String,
    },
}

/// Has the media of `body` encoded and gives the body of the next leg.
pub(crate) async fn run(
    caller: &Caller,
    connector: EcConnector,
    head: &request::Parts,
    body: Vec<Bytes>,
    hosts: &[String],
) -> Result<Vec<Bytes>, EncodeError> {
    let whole = Bytes::from(body.concat());
    let items = media(&whole);
    let mut params: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
    if !items.is_empty() {
        let mut legs = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let message = format!("[{{\"role\":\"user\",\"content\":[{item}]}}]");
            legs.push(one(caller, head, &body, message, index, hosts));
        }
        let answers: Vec<Bytes> = stream::iter(legs).buffered(AT_ONCE).try_collect().await?;
        for answer in &answers {
            params.extend(embeddings(answer));
        }
    }
    let mut edits = vec![Edit::set(&[THRESHOLD], "0")];
    let told = match connector {
        EcConnector::Nixl if !params.is_empty() => serde_json::to_string(&params).ok(),
        EcConnector::Nixl if !items.is_empty() => {
            tracing::warn!("no encode engine named an embedding: is its EC connector configured?");
            None
        }
        _ => None,
    };
    if let Some(told) = &told {
        edits.push(Edit::set(&[PARAMS], told));
    }
    Ok(edit(&body, &edits)?)
}

/// Encodes one item: each engine in turn, beginning with the one whose turn it is.
async fn one(
    caller: &Caller,
    head: &request::Parts,
    body: &[Bytes],
    message: String,
    index: usize,
    hosts: &[String],
) -> Result<Bytes, EncodeError> {
    let edits: Vec<Edit<'_>> = Api::ChatCompletions
        .one_token()
        .chain([Edit::set(&["messages"], &message)])
        .collect();
    let body = edit(body, &edits)?;
    let head = leg_head(head, index);
    let (mut host, mut cause) = ("", String::new());
    for turn in 0..hosts.len() {
        host = &hosts[(index + turn) % hosts.len()];
        let answered = match hosts::resolve(host).await {
            Ok(target) => caller.call(target, &head, body.clone(), LONGEST).await,
            Err(error) => {
                cause = error.to_string();
                continue;
            }
        };
        match answered {
            Ok(response) if response.status().is_success() => return Ok(response.into_body()),
            Ok(response) => cause = response.status().to_string(),
            Err(error) => cause = error.to_string(),
        }
        tracing::warn!(%host, %cause, item = index, "an encode engine did not encode an item");
    }
    Err(EncodeError::Failed {
        item: index,
        host: host.to_owned(),
        cause,
    })
}

fn leg_head(head: &request::Parts, index: usize) -> request::Parts {
    let mut head = head.clone();
    head.uri = Uri::from_static(PATH);
    head.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let id = HeaderName::from_static(header::REQUEST_ID);
    let named = head.headers.get(&id).and_then(|value| value.to_str().ok());
    let named = named.map(|value| format!("{value}-enc-{index}"));
    if let Some(value) = named.and_then(|value| HeaderValue::from_str(&value).ok()) {
        head.headers.insert(id, value);
    }
    head
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow, default)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// The parts of an item that say whether it is one, and whether it came before.
#[derive(Deserialize)]
struct Item {
    r#type: String,
    image_url: Option<Place>,
    audio_url: Option<Place>,
    video_url: Option<Place>,
}

#[derive(Deserialize)]
struct Place {
    url: Option<String>,
}

/// The media of a chat as JSON, in order; of a URL that comes twice the first one.
fn media(body: &[u8]) -> Vec<&str> {
    let Ok(chat) = serde_json::from_slice::<Chat<'_>>(body) else {
        return Vec::new();
    };
    let mut seen = HashSet::new();
    let mut items = Vec::new();
    for content in chat.messages.iter().filter_map(|message| message.content) {
        // A text is no list.
        let parts: Vec<&RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
        for part in parts {
            let Ok(item) = serde_json::from_str::<Item>(part.get()) else {
                continue;
            };
            let place = match item.r#type.as_str() {
                "image_url" => item.image_url,
                "audio_url" => item.audio_url,
                "video_url" => item.video_url,
                "input_audio" => None,
                _ => continue,
            };
            let is_new = place
                .and_then(|place| place.url)
                .filter(|url| !url.is_empty())
                .is_none_or(|url| seen.insert(url));
            if is_new {
                items.push(part.get());
            }
        }
    }
    items
}

#[derive(Deserialize)]
struct Encoded<'a> {
    #[serde(borrow)]
    ec_transfer_params: Option<&'a RawValue>,
}

/// What an answer says about embeddings; nothing, where it says nothing that is an object.
fn embeddings(answer: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice::<Encoded<'_>>(answer)
        .ok()
        .and_then(|encoded| serde_json::from_str(encoded.ec_transfer_params?.get()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_medium_once_in_its_own_words() {
        let body = br#"{"messages":[{"role":"system","content":"x"},{"content":null},{"role":"user","content":[
            {"type":"text","text":"what?"},{"type":"image_url", "image_url":{"url":"http://a"}},
            {"type":"image_url","image_url":{"url":"http://a","detail":"low"}},{"type":"input_audio","input_audio":{"data":"AA"}},
            {"type":"input_audio","input_audio":{"data":"AA"}},{"type":"video_url","video_url":{"url":"http://b"}}]}]}"#;
        let audio = r#"{"type":"input_audio","input_audio":{"data":"AA"}}"#;
        assert_eq!(
            media(body),
            [
                r#"{"type":"image_url", "image_url":{"url":"http://a"}}"#,
                audio,
                audio,
                r#"{"type":"video_url","video_url":{"url":"http://b"}}"#
            ]
        );
        assert!(media(b"no JSON").is_empty() && media(br#"{"prompt":"x"}"#).is_empty());
    }
}
