//! Typed per-request data that producers hand to the plugins after them.

use std::any::{Any, TypeId};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

mod encoder_cache;
mod prediction;
mod tokens;
mod topology;

pub use encoder_cache::{ENCODER_CACHE_MATCH_INFO, EncoderCacheMatch};
pub use prediction::{LATENCY_PREDICTION_INFO, LatencyPrediction, Prediction};
pub use tokens::{MediaFeature, TOKENIZED_PROMPT, TokenizedInput, TokenizedPrompt};
pub use topology::{Locality, TOPOLOGY, Topology};

/// Attribute name of [`PrefixMatch`].
pub const PREFIX_CACHE_MATCH_INFO: &str = "PrefixCacheMatchInfo";
/// Attribute name of [`InFlightLoad`].
pub const IN_FLIGHT_LOAD: &str = "InFlightLoad";
/// Attribute name of [`UncachedTokens`].
pub const UNCACHED_REQUEST_TOKENS: &str = "UncachedRequestTokens";

/// Attribute name of [`PeerEndpoint`].
pub const PEER_ENDPOINT: &str = "peer-endpoint";

/// The endpoint that later profiles of a request go by: that of decode while prefill is chosen, or the other way
/// round.
#[derive(Debug, Default)]
pub struct PeerEndpoint {
    /// By snapshot index.
    pub index: u32,
}

/// Attribute name of the [`SessionId`] that `session-id-producer` reads.
pub const SESSION_ID: &str = "SessionID";
/// Attribute name of the [`SessionId`] that `agent-identity` reads.
pub const AGENT_IDENTITY: &str = "agent-identity";

/// The session a request belongs to, as the client names it; never empty once it is written.
#[derive(Debug, Default)]
pub struct SessionId {
    /// What the header or cookie holds.
    pub value: String,
}

/// Cached prefix per endpoint, in blocks.
#[derive(Debug, Default)]
pub struct PrefixMatch {
    /// Matched blocks of each endpoint, by snapshot index.
    pub matched: Vec<u32>,
    /// Blocks of the request, the partial last one of each prompt included.
    pub total: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Tokens of all prompts.
    pub input_tokens: u64,
}

impl PrefixMatch {
    /// Matched share of endpoint `index`, 0..=1; 0 for a request without blocks.
    pub fn ratio(&self, index: u32) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        f64::from(self.matched_blocks(index)) / f64::from(self.total)
    }

    /// Matched blocks of endpoint `index`.
    pub fn matched_blocks(&self, index: u32) -> u32 {
        self.matched.get(index as usize).copied().unwrap_or(0)
    }

    /// Input tokens endpoint `index` has to compute: whole unmatched blocks plus the partial tail.
    pub fn uncached_tokens(&self, index: u32) -> u64 {
        let cached = u64::from(self.matched_blocks(index)) * u64::from(self.block_tokens);
        self.input_tokens.saturating_sub(cached)
    }
}

/// Marks a dependency on in-flight accounting; the numbers themselves live in the endpoints' slots.
#[derive(Debug, Default)]
pub struct InFlightLoad;

/// Tokens the request would add to each endpoint.
#[derive(Debug, Default)]
pub struct UncachedTokens {
    /// Uncached input tokens, by snapshot index.
    pub input: Vec<u64>,
    /// Estimated output tokens; 0 unless output is counted.
    pub output: u64,
}

/// Identity of an attribute: the name and who produces it. Printed `name/producer`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataKey {
    /// Attribute name.
    pub attribute: &'static str,
    /// Instance name of the producer.
    pub producer: Arc<str>,
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.attribute, self.producer)
    }
}

/// A resolved [`DataKey`]. Only a plugin that declared the key holds one, which is what confines
/// plugins to their declared data.
pub struct AttributeKey<T> {
    index: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for AttributeKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for AttributeKey<T> {}

impl<T> fmt::Debug for AttributeKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttributeKey({})", self.index)
    }
}

/// Which attributes a configuration has.
#[derive(Clone, Debug, Default)]
pub struct AttributeLayout {
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    /// `None` for a place that is free to be taken.
    key: Option<DataKey>,
    of: TypeId,
    make: fn() -> Box<dyn Any + Send>,
}

/// A key is used with two types.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("data type mismatch for '{0}'")]
pub struct TypeMismatch(pub String);

impl AttributeLayout {
    /// Resolves `key`, adding it on first use.
    pub fn resolve<T: Any + Send + Default>(
        &mut self,
        key: DataKey,
    ) -> Result<AttributeKey<T>, TypeMismatch> {
        let of = PhantomData;
        let position = |wanted: Option<&DataKey>| {
            let mut columns = self.columns.iter();
            columns.position(|column| column.key.as_ref() == wanted)
        };
        if let Some(index) = position(Some(&key)) {
            if self.columns[index].of != TypeId::of::<T>() {
                return Err(TypeMismatch(key.to_string()));
            }
            return Ok(AttributeKey { index, of });
        }
        let free = position(None);
        let column = Column {
            key: Some(key),
            of: TypeId::of::<T>(),
            make: || Box::new(T::default()),
        };
        let index = free.unwrap_or(self.columns.len());
        if index == self.columns.len() {
            self.columns.push(column);
        } else {
            self.columns[index] = column;
        }
        Ok(AttributeKey { index, of })
    }

    /// A layout for the configuration that replaces this one: what `is_kept` names stays where it is,
    /// so that plugins which are carried over may go on using their keys; the places of others are free.
    #[must_use]
    pub fn successor(&self, is_kept: impl Fn(&DataKey) -> bool) -> Self {
        let mut columns = self.columns.clone();
        for column in &mut columns {
            column.key = column.key.take().filter(&is_kept);
        }
        Self { columns }
    }

    /// An empty set of attributes.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            values: self.columns.iter().map(|column| (column.make)()).collect(),
            written: vec![false; self.columns.len()],
        }
    }
}

/// The attributes of one request; reused by later requests.
#[derive(Debug, Default)]
pub struct Attributes {
    values: Vec<Box<dyn Any + Send>>,
    written: Vec<bool>,
}

impl Attributes {
    /// Forgets all values but keeps their memory.
    pub fn clear(&mut self) {
        self.written.fill(false);
    }

    /// What the producer wrote for this request.
    pub fn get<T: Any>(&self, key: AttributeKey<T>) -> Option<&T> {
        if !self.written.get(key.index).copied().unwrap_or(false) {
            return None;
        }
        self.values[key.index].downcast_ref()
    }

    /// Lets the producer fill the value of `key` while it reads others. The value may hold what an
    /// earlier request left; `fill` overwrites it and says whether there is a value now.
    pub fn fill<T: Any + Send>(&mut self, key: AttributeKey<T>, fill: impl FnOnce(&mut T, &Self) -> bool) {
        if key.index >= self.values.len() {
            return;
        }
        // A boxed zero-sized value does not allocate.
        let mut value = std::mem::replace(&mut self.values[key.index], Box::new(()));
        if let Some(typed) = value.downcast_mut::<T>() {
            self.written[key.index] = fill(typed, self);
        }
        self.values[key.index] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(attribute: &'static str, producer: &str) -> DataKey {
        DataKey {
            attribute,
            producer: producer.into(),
        }
    }

    #[test]
    fn values_are_seen_only_after_they_were_written_for_this_request() {
        let mut layout = AttributeLayout::default();
        let prefix: AttributeKey<PrefixMatch> = layout.resolve(key("a", "p")).unwrap();
        let mut attributes = layout.attributes();
        assert!(attributes.get(prefix).is_none());
        attributes.fill(prefix, |value, others| {
            assert!(others.get(prefix).is_none());
            value.total = 3;
            true
        });
        assert_eq!(attributes.get(prefix).unwrap().total, 3);
        attributes.clear();
        assert!(attributes.get(prefix).is_none());
    }

    #[test]
    fn one_key_has_one_type_and_producers_are_kept_apart() {
        let mut layout = AttributeLayout::default();
        let first: AttributeKey<PrefixMatch> = layout.resolve(key("a", "p")).unwrap();
        let other: AttributeKey<PrefixMatch> = layout.resolve(key("a", "q")).unwrap();
        assert_ne!(first.index, other.index);
        let mismatch = layout.resolve::<InFlightLoad>(key("a", "p")).unwrap_err();
        assert_eq!(mismatch.to_string(), "data type mismatch for 'a/p'");
    }

    #[test]
    fn a_successor_keeps_places_and_reuses_free_ones() {
        let mut layout = AttributeLayout::default();
        let gone: AttributeKey<PrefixMatch> = layout.resolve(key("a", "p")).unwrap();
        let kept: AttributeKey<PrefixMatch> = layout.resolve(key("b", "p")).unwrap();
        let mut next = layout.successor(|key| key.attribute == "b");
        let again: AttributeKey<PrefixMatch> = next.resolve(key("b", "p")).unwrap();
        assert_eq!(again.index, kept.index);
        let taken: AttributeKey<InFlightLoad> = next.resolve(key("c", "p")).unwrap();
        assert_eq!(taken.index, gone.index);
        assert_eq!(next.attributes().values.len(), 2);
    }

    #[test]
    fn uncached_tokens_keep_the_partial_tail() {
        let matched = PrefixMatch {
            matched: vec![0, 2, 3],
            total: 3,
            block_tokens: 64,
            input_tokens: 150,
        };
        assert_eq!(matched.uncached_tokens(0), 150);
        assert_eq!(matched.uncached_tokens(1), 22);
        assert_eq!(matched.uncached_tokens(2), 0);
        assert!((matched.ratio(1) - 2.0 / 3.0).abs() < 1e-12);
    }
}
