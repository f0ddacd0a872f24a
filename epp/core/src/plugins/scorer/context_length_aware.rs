//! `context-length-aware`: prefers endpoints that are meant for requests of this length; also a filter.
//!
//! | parameter | default |
//! |---|---|
//! | `label` | `llm-d.ai/context-length-range` |
//! | `enableFiltering` | false |
//!
//! The label holds ranges of tokens, `min-max`, separated by commas; the best of them counts. Within a range of width w,
//! h tokens below its end: `0.3 + 0.7·(0.7/(1 + w/10000) + 0.3·h/w)`; d tokens outside of it: `0.3/(1 + d/1000)`. No
//! label gives 0.5, a label that is no range 0. The filter removes endpoints with a label and no range for the request.
//! The length is the number of token ids, or a quarter of the bytes of the prompt; media count where a `token-producer` is
//! configured.

use std::sync::Arc;

use llmd_epp_api::plugin::{Filter, Scorer};
use llmd_epp_api::{BuildError, Cycle, Need, Plugin, PluginType, Random, Stability};
use serde::Deserialize;

use crate::plugins::prompt::Prompts;

/// Type name in configurations.
pub const TYPE: &str = "context-length-aware";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let Parameters {
            label,
            enable_filtering,
        } = context.parameters()?;
        if label.is_empty() {
            return Err(BuildError::value("label", "must not be empty"));
        }
        let prompts = Prompts::read_by(context, Need::Optional)?;
        let plugin = Arc::new(ContextLengthAware { label, prompts });
        Ok(Plugin {
            filter: enable_filtering.then(|| plugin.clone() as Arc<dyn Filter>),
            scorer: Some(plugin),
            ..Plugin::default()
        })
    },
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parameters {
    label: String,
    enable_filtering: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            label: "llm-d.ai/context-length-range".to_owned(),
            enable_filtering: false,
        }
    }
}

struct ContextLengthAware {
    label: String,
    prompts: Prompts,
}

/// Tokens from..=to.
type Range = (u64, u64);

/// `None` when one of them is no range.
fn ranges(label: &str) -> Option<impl Iterator<Item = Range>> {
    let parse = |text: &str| -> Option<Range> {
        let (from, to) = text.trim().split_once('-')?;
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to).then_some((from, to))
    };
    let all: Option<Vec<Range>> = label.split(',').map(parse).collect();
    all.map(IntoIterator::into_iter)
}

fn score(tokens: u64, (from, to): Range) -> f64 {
    if tokens < from || tokens > to {
        let distance = if tokens < from { from - tokens } else { tokens - to };
        return 0.3 / (1.0 + distance as f64 / 1000.0);
    }
    let width = (to - from).max(1) as f64;
    0.3 + 0.7 * (0.7 / (1.0 + width / 10_000.0) + 0.3 * (to - tokens) as f64 / width)
}

impl Scorer for ContextLengthAware {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[u32], scores: &mut [f64]) {
        let tokens = self.prompts.tokens(cycle.request, cycle.attributes);
        for (result, index) in scores.iter_mut().zip(candidates) {
            *result = match cycle.snapshot.endpoints[*index as usize].label(&self.label) {
                None => 0.5,
                Some(label) => {
                    let ranges = ranges(label).into_iter().flatten();
                    ranges.map(|range| score(tokens, range)).fold(0.0, f64::max)
                }
            };
        }
    }
}

impl Filter for ContextLengthAware {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<u32>, _: &Random) {
        let tokens = self.prompts.tokens(cycle.request, cycle.attributes);
        candidates.retain(|index| {
            let label = cycle.snapshot.endpoints[*index as usize].label(&self.label);
            label.is_none_or(|label| {
                let mut ranges = ranges(label).into_iter().flatten();
                ranges.any(|(from, to)| (from..=to).contains(&tokens))
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Pool, build, request};

    const LABEL: &str = "llm-d.ai/context-length-range";

    /// A prompt of 1,000 tokens.
    fn pool() -> Pool {
        let mut pool = Pool::of(5)
            .label(0, LABEL, "0-2000")
            .label(1, LABEL, "2000-10000")
            .label(2, LABEL, "many")
            .label(3, LABEL, "5000-9000, 500-1500");
        pool.request = request(&"x".repeat(4000));
        pool
    }

    #[test]
    fn narrow_ranges_with_room_score_best() {
        let scores = pool().scored(&*build(&PLUGIN, json!({})).scorer.unwrap());
        let expected = [
            0.3 + 0.7 * (0.7 / 1.2 + 0.3 * 0.5),
            0.3 / 2.0,
            0.0,
            0.3 + 0.7 * (0.7 / 1.1 + 0.3 * 0.5),
            0.5,
        ];
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-12, "{scores:?}");
        }
    }

    #[test]
    fn the_filter_is_there_when_it_is_asked_for() {
        assert!(build(&PLUGIN, json!({})).filter.is_none());
        let filter = build(&PLUGIN, json!({"enableFiltering": true})).filter.unwrap();
        assert_eq!(pool().filtered(&*filter), [0, 3, 4]);
    }
}
