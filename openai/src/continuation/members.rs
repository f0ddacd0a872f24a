//! A JSON object as a list of members whose values keep their bytes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members in their order; a name that comes twice stays twice.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads one object; `None` for anything else.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The value of `name`, the last one as JSON readers take it; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(found.1.get()).filter(|value| *value != "null")
    }

    /// The object as JSON, each value replaced by what `change` gives for it; `added` follows.
    pub(super) fn write(
        &self,
        change: impl Fn(&str, &str) -> Option<Vec<u8>>,
        added: &[(&str, &str)],
    ) -> Vec<u8> {
        let mut json = Vec::with_capacity(256);
        for (name, value) in &self.0 {
            if added.iter().any(|(added, _)| added == name) {
                continue;
            }
            let changed = change(name, value.get());
            member(
                &mut json,
                name,
                changed.as_deref().unwrap_or(value.get().as_bytes()),
            );
        }
        for (name, value) in added {
            member(&mut json, name, value.as_bytes());
        }
        json.extend_from_slice(if json.is_empty() { b"{}" } else { b"}" });
        json
    }
}

fn member(json: &mut Vec<u8>, name: &str, value: &[u8]) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(&crate::splice::json_string(name));
    json.push(b':');
    json.extend_from_slice(value);
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}
