//! Bytes as a case writes them: text, JSON, protobuf, gRPC frames, repeated and compressed parts.

use std::io::Write;

use anyhow::{Context, bail};
use base64::Engine;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::Deserialize;
use serde_json::Value;

/// A body.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// These bytes.
    Text(String),
    /// Made from parts.
    Built(Box<Built>),
}

/// A body that is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Built {
    /// A JSON document without blanks, keys in the order of the file.
    Json(Value),
    /// Bytes in base64.
    Base64(String),
    /// A text so many times.
    Repeat(String, usize),
    /// Parts one after the other.
    Concat(Vec<Body>),
    /// Compressed with gzip.
    Gzip(Body),
    /// A protobuf message: pairs of field number and value. Text is a string, a number or boolean a varint, a list of
    /// numbers a packed field, a list of pairs a message.
    Protobuf(Vec<(u32, Value)>),
    /// A gRPC frame: no compression, length, message.
    Grpc(Body),
}

impl Body {
    /// The bytes, with `${name}` in text replaced by `resolve`.
    pub fn bytes(&self, resolve: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Bytes> {
        let built = match self {
            Self::Text(text) => return Ok(substitute(text, resolve)?.into()),
            Self::Built(built) => built,
        };
        Ok(match &**built {
            Built::Json(value) => substitute(&serde_json::to_string(value)?, resolve)?.into(),
            Built::Base64(text) => base64::engine::general_purpose::STANDARD.decode(text)?.into(),
            Built::Repeat(text, times) => text.repeat(*times).into(),
            Built::Concat(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    all.extend_from_slice(&part.bytes(resolve)?);
                }
                all.into()
            }
            Built::Gzip(inner) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&inner.bytes(resolve)?)?;
                encoder.finish()?.into()
            }
            Built::Protobuf(fields) => protobuf(fields)?.into(),
            Built::Grpc(inner) => {
                let message = inner.bytes(resolve)?;
                let mut frame = vec![0];
                frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
                frame.extend_from_slice(&message);
                frame.into()
            }
        })
    }
}

/// Replaces every `${name}`; a name that is not known is an error, since the case would compare something else.
pub(crate) fn substitute(text: &str, resolve: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').context("`${` without `}`")?;
        out.push_str(before);
        out.push_str(&resolve(name).with_context(|| format!("nothing is called `{name}` in this case"))?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

fn protobuf(fields: &[(u32, Value)]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (number, value) in fields {
        match value {
            Value::String(text) => delimited(*number, text.as_bytes(), &mut out),
            Value::Bool(flag) => {
                encode_key(*number, WireType::Varint, &mut out);
                encode_varint(u64::from(*flag), &mut out);
            }
            Value::Number(value) => {
                encode_key(*number, WireType::Varint, &mut out);
                encode_varint(value.as_u64().context("a varint is not negative")?, &mut out);
            }
            Value::Array(items) if items.iter().all(Value::is_u64) => {
                let mut packed = Vec::new();
                for item in items.iter().filter_map(Value::as_u64) {
                    encode_varint(item, &mut packed);
                }
                delimited(*number, &packed, &mut out);
            }
            Value::Array(_) => {
                let inner: Vec<(u32, Value)> = serde_json::from_value(value.clone())?;
                delimited(*number, &protobuf(&inner)?, &mut out);
            }
            Value::Null | Value::Object(_) => bail!("a protobuf field cannot be {value}"),
        }
    }
    Ok(out)
}

fn delimited(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(json: &str) -> Vec<u8> {
        let body: Body = serde_json::from_str(json).expect("a body");
        let resolve = |name: &str| (name == "a").then(|| "1.2.3.4:5".to_owned());
        body.bytes(&resolve).expect("bytes").to_vec()
    }

    #[test]
    fn bodies_are_made_as_written() {
        assert_eq!(bytes(r#""x ${a}""#), b"x 1.2.3.4:5");
        assert_eq!(
            bytes(r#"{"json": {"b": 1, "a": "${a}"}}"#),
            br#"{"b":1,"a":"1.2.3.4:5"}"#
        );
        assert_eq!(bytes(r#"{"concat": [{"repeat": ["ab", 2]}, "c"]}"#), b"ababc");
        assert_eq!(bytes(r#"{"grpc": "xy"}"#), [0, 0, 0, 0, 2, b'x', b'y']);
    }

    #[test]
    fn protobuf_fields_have_the_wire_format() {
        // Field 1 "r", field 2 {2: [1, 300]}, field 5 true.
        let message = bytes(r#"{"protobuf": [[1, "r"], [2, [[2, [1, 300]]]], [5, true]]}"#);
        assert_eq!(message, [10, 1, b'r', 18, 5, 18, 3, 1, 0xac, 2, 40, 1]);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let error = substitute("${nobody}", &|_| None).unwrap_err();
        assert!(error.to_string().contains("nobody"), "{error}");
    }
}
