//! Token counts of a response, and how several reports of them merge.

use serde_json::{Map, Value};

/// Token counts that an engine reported; zero when it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens (`prompt_tokens`, `input_tokens`).
    pub prompt: u64,
    /// Generated tokens (`completion_tokens`, `output_tokens`).
    pub completion: u64,
    /// All tokens (`total_tokens`).
    pub total: u64,
    /// Prompt tokens found in a cache (`prompt_tokens_details.cached_tokens` and its twin; Anthropic's
    /// `cache_read_input_tokens`, SGLang's `cached_tokens`).
    pub cached: u64,
}

impl Usage {
    /// Takes over a `usage` object in JSON. Per field a non-zero value wins over an older one; the
    /// total is recomputed from prompt and completion unless this report carries all three.
    /// Something else than an object changes nothing.
    pub fn merge_json(&mut self, raw: &[u8]) {
        let Ok(Value::Object(usage)) = serde_json::from_slice(raw) else {
            return;
        };
        self.merge_object(&usage);
    }

    /// Takes over SGLang's `meta_info`; in a stream only the last one, which has a `finish_reason`, counts.
    pub fn merge_meta_info(&mut self, raw: &[u8]) {
        if let Ok(Value::Object(info)) = serde_json::from_slice(raw)
            && info.get("finish_reason").is_some_and(|reason| !reason.is_null())
        {
            self.merge_object(&info);
        }
    }

    fn merge_object(&mut self, usage: &Map<String, Value>) {
        let read = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| count(usage.get(*name)?))
                .unwrap_or(0)
        };
        let details = ["prompt_tokens_details", "input_tokens_details"];
        let cached = details
            .iter()
            .find_map(|name| count(usage.get(*name)?.get("cached_tokens")?))
            .or_else(|| {
                count(
                    usage
                        .get("cache_read_input_tokens")
                        .or_else(|| usage.get("cached_tokens"))?,
                )
            });
        self.merge(Self {
            prompt: read(["prompt_tokens", "input_tokens"]),
            completion: read(["completion_tokens", "output_tokens"]),
            total: usage.get("total_tokens").and_then(count).unwrap_or(0),
            cached: cached.unwrap_or(0),
        });
    }

    /// Takes over a later report.
    pub fn merge(&mut self, newer: Self) {
        let Self {
            prompt,
            completion,
            total,
            cached,
        } = newer;
        let is_whole = prompt > 0 && completion > 0 && total > 0;
        let keep = |old: &mut u64, new: u64| {
            if new > 0 {
                *old = new;
            }
        };
        keep(&mut self.prompt, prompt);
        keep(&mut self.completion, completion);
        keep(&mut self.cached, cached);
        if is_whole {
            self.total = total;
        } else if self.prompt > 0 || self.completion > 0 {
            self.total = self.prompt.saturating_add(self.completion);
        } else {
            keep(&mut self.total, total);
        }
    }
}

/// A number or a numeric string.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| Some(number.as_f64()?.max(0.0) as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
