//! One mistake in a resource, told so that it can be mended.

use std::fmt;

/// Kind of a mistake; the words of Kubernetes' own field errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Problem {
    /// A field is missing.
    Required,
    /// A value is wrong.
    Invalid,
    /// A field must not be set here.
    Forbidden,
    /// Something that is named does not exist.
    NotFound,
    /// The schema has no such field.
    Unknown,
}

/// One mistake: field, value, what is wrong, the nearest right value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// Path of the field, such as `spec.pools[0].name`.
    pub field: String,
    /// The value as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Kind of the mistake.
    pub problem: Problem,
    /// What is wrong and how it is mended.
    pub message: String,
    /// The nearest right name or value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl FieldError {
    /// An error without value and suggestion.
    pub fn new(field: impl Into<String>, problem: Problem, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: None,
            problem,
            message: message.into(),
            suggestion: None,
        }
    }

    /// Adds the value as given.
    #[must_use]
    pub fn value<V: ToString + ?Sized>(mut self, value: &V) -> Self {
        self.value = Some(value.to_string());
        self
    }

    /// Adds the candidate nearest to `given`, if one is near.
    #[must_use]
    pub fn nearest<'a>(mut self, given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = nearest(given, candidates).map(str::to_owned);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field)?;
        if let Some(value) = &self.value {
            write!(f, "{value:?}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean {suggestion:?}?")?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldError {}

/// The candidate most like `given`, if it is alike enough to be meant.
fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.6;
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(given, candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_field_value_and_the_nearest_right_one() {
        let error = FieldError::new("spec.path", Problem::NotFound, "no such well-lit path")
            .value("optimised-baseline")
            .nearest("optimised-baseline", ["simulated", "optimized-baseline"]);
        assert_eq!(
            error.to_string(),
            "spec.path: \"optimised-baseline\": no such well-lit path; did you mean \"optimized-baseline\"?"
        );
        let far = FieldError::new("x", Problem::NotFound, "no").nearest("zzz", ["simulated"]);
        assert_eq!(far.suggestion, None);
    }
}
