//! The fields of an event, by position in an array or by name in a map.

use rmpv::ValueRef;

use super::EventError;

/// An event taken apart.
pub(super) struct Fields<'a> {
    /// Its name.
    pub(super) name: String,
    shape: Shape<'a>,
}

enum Shape<'a> {
    Array(&'a [ValueRef<'a>]),
    Map(&'a [(ValueRef<'a>, ValueRef<'a>)]),
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a ValueRef<'a>) -> Result<Self, EventError> {
        let unnamed = |problem: &str| EventError {
            event: "event".to_owned(),
            problem: problem.to_owned(),
        };
        match value {
            ValueRef::Array(parts) => {
                let name = parts.first().and_then(text);
                Ok(Self {
                    name: name.ok_or_else(|| unnamed("an array that does not begin with its name"))?,
                    shape: Shape::Array(parts),
                })
            }
            ValueRef::Map(members) => {
                let named = Self {
                    name: String::new(),
                    shape: Shape::Map(members),
                };
                let name = named.get("type", 0).and_then(text);
                Ok(Self {
                    name: name.ok_or_else(|| unnamed("a map without type"))?,
                    ..named
                })
            }
            _ => Err(unnamed("neither an array nor a map")),
        }
    }

    /// The same with so many of the places of an array.
    pub(super) fn first(&self, places: usize) -> Fields<'a> {
        let shape = match self.shape {
            Shape::Array(parts) => Shape::Array(parts.get(..places).unwrap_or(parts)),
            Shape::Map(members) => Shape::Map(members),
        };
        Fields {
            name: self.name.clone(),
            shape,
        }
    }

    fn get(&self, name: &str, place: usize) -> Option<&'a ValueRef<'a>> {
        let value = match self.shape {
            Shape::Array(parts) => parts.get(place),
            Shape::Map(members) => {
                let mut members = members.iter();
                members
                    .find(|(key, _)| text(key).is_some_and(|key| key == name))
                    .map(|(_, value)| value)
            }
        };
        value.filter(|value| !matches!(value, ValueRef::Nil))
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) -> EventError {
        EventError {
            event: self.name.clone(),
            problem: problem.into(),
        }
    }

    pub(super) fn text(&self, name: &str, place: usize) -> Result<Option<String>, EventError> {
        let value = self.get(name, place);
        value
            .map(|value| text(value).ok_or_else(|| self.wrong(format!("{name} is no text"))))
            .transpose()
    }

    /// A field that only maps have.
    pub(super) fn named_text(&self, name: &str) -> Result<Option<String>, EventError> {
        self.text(name, usize::MAX)
    }

    pub(super) fn number(&self, name: &str, place: usize) -> Result<Option<u32>, EventError> {
        let value = self.get(name, place);
        let number = |value: &ValueRef<'_>| value.as_u64().and_then(|number| u32::try_from(number).ok());
        value
            .map(|value| {
                number(value).ok_or_else(|| self.wrong(format!("{name} is no number from 0 to 4294967295")))
            })
            .transpose()
    }

    pub(super) fn hash(&self, name: &str, place: usize) -> Result<Option<u64>, EventError> {
        let value = self.get(name, place);
        value
            .map(|value| hash(value).ok_or_else(|| self.wrong(format!("{name} is no hash"))))
            .transpose()
    }

    pub(super) fn hashes(&self, name: &str, place: usize) -> Result<Vec<u64>, EventError> {
        let hashes = self.list(name, place)?.iter().map(hash);
        let hashes: Option<Vec<u64>> = hashes.collect();
        hashes.ok_or_else(|| self.wrong(format!("{name} has something that is no hash")))
    }

    /// Pairs of tokens, as speculative decoding has them, are not tokens.
    pub(super) fn tokens(&self, name: &str, place: usize) -> Result<Vec<u32>, EventError> {
        let tokens = self.list(name, place)?.iter();
        let tokens = tokens.map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok()));
        let tokens: Option<Vec<u32>> = tokens.collect();
        tokens.ok_or_else(|| self.wrong(format!("{name} has something that is no token")))
    }

    fn list(&self, name: &str, place: usize) -> Result<&'a [ValueRef<'a>], EventError> {
        match self.get(name, place) {
            Some(ValueRef::Array(parts)) => Ok(parts),
            Some(_) => Err(self.wrong(format!("{name} is no list"))),
            None => Err(self.wrong(format!("{name} is missing"))),
        }
    }
}

/// Text is written as such, or as bytes.
fn text(value: &ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::String(text) => text.as_str().map(str::to_owned),
        ValueRef::Binary(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    }
}

/// A number, signed or not, or the last eight bytes of a digest.
fn hash(value: &ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Integer(number) => number
            .as_u64()
            .or_else(|| number.as_i64().map(i64::cast_unsigned)),
        ValueRef::Binary(bytes) if !bytes.is_empty() => {
            let mut last = [0; 8];
            let from = &bytes[bytes.len().saturating_sub(8)..];
            last[8 - from.len()..].copy_from_slice(from);
            Some(u64::from_be_bytes(last))
        }
        _ => None,
    }
}
