//! One engine's report of token counts, decoded without a tree: members nobody asks for are skipped in place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a `usage` object or SGLang's `meta_info` said; `None` where a member is absent or no number.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) prompt_tokens: Option<u64>,
    pub(super) input_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) total_tokens: Option<u64>,
    /// `cached_tokens` of `prompt_tokens_details` and of `input_tokens_details`.
    pub(super) details: [Option<u64>; 2],
    pub(super) cache_read_input_tokens: Option<u64>,
    pub(super) cached_tokens: Option<u64>,
    /// `finish_reason` is there and not null.
    pub(super) is_finished: bool,
}

enum Member {
    PromptTokens,
    InputTokens,
    CompletionTokens,
    OutputTokens,
    TotalTokens,
    PromptTokensDetails,
    InputTokensDetails,
    CacheReadInputTokens,
    CachedTokens,
    FinishReason,
    Other,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "prompt_tokens" => Member::PromptTokens,
                    "input_tokens" => Member::InputTokens,
                    "completion_tokens" => Member::CompletionTokens,
                    "output_tokens" => Member::OutputTokens,
                    "total_tokens" => Member::TotalTokens,
                    "prompt_tokens_details" => Member::PromptTokensDetails,
                    "input_tokens_details" => Member::InputTokensDetails,
                    "cache_read_input_tokens" => Member::CacheReadInputTokens,
                    "cached_tokens" => Member::CachedTokens,
                    "finish_reason" => Member::FinishReason,
                    _ => Member::Other,
                })
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Report;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Report, A::Error> {
                let mut report = Report::default();
                while let Some(member) = map.next_key()? {
                    let slot = match member {
                        Member::PromptTokens => &mut report.prompt_tokens,
                        Member::InputTokens => &mut report.input_tokens,
                        Member::CompletionTokens => &mut report.completion_tokens,
                        Member::OutputTokens => &mut report.output_tokens,
                        Member::TotalTokens => &mut report.total_tokens,
                        Member::CacheReadInputTokens => &mut report.cache_read_input_tokens,
                        Member::CachedTokens => &mut report.cached_tokens,
                        Member::PromptTokensDetails => {
                            report.details[0] = map.next_value::<Lenient>()?.cached_tokens;
                            continue;
                        }
                        Member::InputTokensDetails => {
                            report.details[1] = map.next_value::<Lenient>()?.cached_tokens;
                            continue;
                        }
                        Member::FinishReason => {
                            report.is_finished = map.next_value::<Option<IgnoredAny>>()?.is_some();
                            continue;
                        }
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *slot = map.next_value::<Lenient>()?.count;
                }
                Ok(report)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Any value: a number or a numeric string counts, an object is searched for `cached_tokens`.
#[derive(Default)]
struct Lenient {
    count: Option<u64>,
    cached_tokens: Option<u64>,
}

impl Lenient {
    fn counted(count: u64) -> Self {
        Self {
            count: Some(count),
            cached_tokens: None,
        }
    }
}

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Lenient;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Lenient, E> {
                Ok(Lenient::counted(value))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Lenient, E> {
                Ok(Lenient::counted(0))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Lenient, E> {
                Ok(Lenient::counted(value.max(0.0) as u64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Lenient, E> {
                Ok(Lenient {
                    count: text.trim().parse().ok(),
                    cached_tokens: None,
                })
            }

            fn visit_bool<E>(self, _: bool) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_unit<E>(self) -> Result<Lenient, E> {
                Ok(Lenient::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Lenient, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Lenient::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lenient, A::Error> {
                let mut found = Lenient::default();
                while let Some(member) = map.next_key()? {
                    if matches!(member, Member::CachedTokens) {
                        found.cached_tokens = map.next_value::<Self::Value>()?.count;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Anything)
    }
}
