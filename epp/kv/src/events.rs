//! KV events as engines publish them: which blocks came into a cache, and which left it.
//!
//! One decoder for vLLM and SGLang, old and new: events are arrays by position or maps by name, hashes numbers or
//! bytes. What one event gets wrong does not take the others of its batch along. Sources: vLLM
//! `vllm/distributed/kv_events.py`, SGLang `disaggregation/kv_events.py`, llm-d-router `pkg/kvevents/engineadapter`.

mod fields;

use rmpv::ValueRef;
use serde::Serialize;

use fields::Fields;

/// What an engine publishes at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Seconds since 1970, by the engine's clock.
    pub at: f64,
    /// Data-parallel rank, where the engine has several.
    pub rank: Option<u32>,
    /// In order.
    pub events: Vec<Result<Event, EventError>>,
}

/// A change of an engine's cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Blocks came.
    #[serde(rename = "BlockStored")]
    Stored(Stored),
    /// Blocks left.
    #[serde(rename = "BlockRemoved")]
    Removed(Removed),
    /// All blocks left, of all tiers.
    #[serde(rename = "AllBlocksCleared")]
    Cleared,
    /// Something that this decoder has no name for.
    #[serde(rename = "Unknown")]
    Other {
        /// Its name.
        name: String,
    },
}

/// Blocks that came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Their names, in order of the prompt.
    pub block_hashes: Vec<u64>,
    /// The block before the first; `None` at the beginning of a prompt.
    pub parent_block_hash: Option<u64>,
    /// Tokens of all blocks; none where a tier only names its blocks.
    pub token_ids: Vec<u32>,
    /// Tokens of a block; 0 where a tier only names its blocks.
    pub block_size: u32,
    /// Tier, as the engine writes it; `None` is the accelerator's memory.
    pub medium: Option<String>,
    /// Adapter.
    pub lora_name: Option<String>,
    /// What separates caches of users.
    pub cache_salt: Option<String>,
    /// Group of layers of a hybrid model.
    pub group_idx: Option<u32>,
    /// Kind of the group's cache.
    pub kv_cache_spec_kind: Option<String>,
    /// Tokens of the group's window.
    pub kv_cache_spec_sliding_window: Option<u32>,
}

/// Blocks that left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Their names.
    pub block_hashes: Vec<u64>,
    /// Tier, as the engine writes it; `None` is the accelerator's memory.
    pub medium: Option<String>,
    /// Group of layers of a hybrid model.
    pub group_idx: Option<u32>,
}

/// Why a payload is no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a batch of KV events: {0}")]
pub struct BatchError(String);

/// Why one event of a batch is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event}: {problem}")]
pub struct EventError {
    /// Its name, as far as it has one.
    pub event: String,
    /// What is wrong.
    pub problem: String,
}

/// Decodes a payload.
///
/// # Errors
/// It is not a msgpack array of a time and a list.
pub fn decode(payload: &[u8]) -> Result<Batch, BatchError> {
    let mut rest = payload;
    let batch = rmpv::decode::read_value_ref(&mut rest).map_err(|error| BatchError(error.to_string()))?;
    let ValueRef::Array(parts) = batch else {
        return Err(BatchError("it is no array".to_owned()));
    };
    let at = parts.first().and_then(number);
    let at = at.ok_or_else(|| BatchError("it does not begin with a time".to_owned()))?;
    let Some(ValueRef::Array(events)) = parts.get(1) else {
        return Err(BatchError("its second part is no list of events".to_owned()));
    };
    let rank = parts.get(2).and_then(ValueRef::as_u64);
    Ok(Batch {
        at,
        rank: rank.and_then(|rank| u32::try_from(rank).ok()),
        events: events.iter().map(event).collect(),
    })
}

/// A time may be written as a whole number.
fn number(value: &ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::F64(number) => Some(*number),
        ValueRef::F32(number) => Some(f64::from(*number)),
        ValueRef::Integer(number) => number.as_f64(),
        _ => None,
    }
}

fn event(value: &ValueRef<'_>) -> Result<Event, EventError> {
    // A storage tier packs each event by itself.
    if let ValueRef::Binary(packed) = value {
        let mut packed = *packed;
        let inner = rmpv::decode::read_value_ref(&mut packed).map_err(|error| EventError {
            event: "event".to_owned(),
            problem: error.to_string(),
        })?;
        return event_of(&inner);
    }
    event_of(value)
}

fn event_of(value: &ValueRef<'_>) -> Result<Event, EventError> {
    let fields = Fields::of(value)?;
    match fields.name.as_str() {
        "BlockStored" => stored(&fields).map(Event::Stored),
        // SGLang 0.5.18: the same with a map of its own after the medium
        "BlockStoredWithMetadata" => stored(&fields.first(7)).map(Event::Stored),
        "BlockRemoved" => Ok(Event::Removed(Removed {
            block_hashes: fields.hashes("block_hashes", 1)?,
            medium: fields.text("medium", 2)?,
            group_idx: fields.number("group_idx", 3)?,
        })),
        "AllBlocksCleared" => Ok(Event::Cleared),
        other => Ok(Event::Other {
            name: other.to_owned(),
        }),
    }
}

fn stored(fields: &Fields<'_>) -> Result<Stored, EventError> {
    Ok(Stored {
        block_hashes: fields.hashes("block_hashes", 1)?,
        parent_block_hash: fields.hash("parent_block_hash", 2)?.filter(|parent| *parent != 0),
        token_ids: fields.tokens("token_ids", 3)?,
        block_size: fields
            .number("block_size", 4)?
            .ok_or_else(|| fields.wrong("block_size is missing"))?,
        medium: fields.text("medium", 6)?,
        lora_name: fields.text("lora_name", 7)?,
        cache_salt: fields.named_text("cache_salt")?,
        group_idx: fields.number("group_idx", 9)?,
        kv_cache_spec_kind: fields.text("kv_cache_spec_kind", 10)?,
        kv_cache_spec_sliding_window: fields.number("kv_cache_spec_sliding_window", 11)?,
    })
}

#[cfg(test)]
mod tests;
