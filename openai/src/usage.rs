//! Token counts of a response, and how several reports of them merge.

mod report;

use report::Report;

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
        if let Ok(report) = serde_json::from_slice(raw) {
            self.merge_report(&report);
        }
    }

    /// Takes over SGLang's `meta_info`; in a stream only the last one, which has a `finish_reason`, counts.
    pub fn merge_meta_info(&mut self, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        if let Ok(report) = serde_json::from_slice::<Report>(raw)
            && report.is_finished
        {
            self.merge_report(&report);
        }
    }

    fn merge_report(&mut self, report: &Report) {
        let [prompt_details, input_details] = report.details;
        let cached = prompt_details
            .or(input_details)
            .or(report.cache_read_input_tokens)
            .or(report.cached_tokens);
        self.merge(Self {
            prompt: report.prompt_tokens.or(report.input_tokens).unwrap_or(0),
            completion: report.completion_tokens.or(report.output_tokens).unwrap_or(0),
            total: report.total_tokens.unwrap_or(0),
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
