//! Bounds the distinct values of a metric label that clients choose.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Distinct values per label (upstream's cap for model names and fairness ids).
pub const DISTINCT_VALUES: usize = 1000;
/// What values beyond the cap become.
pub const OTHER: &str = "other";

/// Lets the first [`DISTINCT_VALUES`] values through.
#[derive(Debug, Default)]
pub struct LabelCap(RwLock<HashSet<Arc<str>>>);

impl LabelCap {
    /// `value`, or [`OTHER`] once the cap is reached.
    pub fn admit<'a>(&self, value: &'a str) -> &'a str {
        if self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(value)
        {
            return value;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < DISTINCT_VALUES || known.contains(value) {
            known.insert(value.into());
            return value;
        }
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_cap_are_other_and_known_ones_stay() {
        let cap = LabelCap::default();
        for i in 0..DISTINCT_VALUES {
            let value = i.to_string();
            assert_eq!(cap.admit(&value), value);
        }
        assert_eq!(cap.admit("one too many"), OTHER);
        assert_eq!(cap.admit("0"), "0");
    }
}
