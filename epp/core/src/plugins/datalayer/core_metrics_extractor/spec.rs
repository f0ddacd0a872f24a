//! The spec grammar: a family name and optional label equalities, `name{key=value,key="value"}`.

/// Why a spec does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric spec '{text}' is invalid: {reason}; write name or name{{label=value,…}}")]
pub struct SpecError {
    text: String,
    reason: &'static str,
}

/// A parsed spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) family: String,
    pub(super) labels: Vec<(String, String)>,
}

impl Spec {
    /// Parses `text`; an empty one disables the field.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, SpecError> {
        let fail = |reason| SpecError {
            text: text.to_owned(),
            reason,
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let (family, selector) = match trimmed.split_once('{') {
            None => (trimmed, None),
            Some((family, rest)) => {
                let inner = rest
                    .strip_suffix('}')
                    .ok_or_else(|| fail("the label list must end with '}'"))?;
                (family.trim_end(), Some(inner))
            }
        };
        if !is_name(family, true) {
            return Err(fail("the family name has characters outside [a-zA-Z0-9_:]"));
        }
        let labels = selector.map_or(Ok(Vec::new()), labels).map_err(fail)?;
        Ok(Some(Self {
            family: family.to_owned(),
            labels,
        }))
    }
}

fn labels(mut rest: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(labels);
        }
        let (key, after) = rest.split_once('=').ok_or("a label needs '='")?;
        let key = key.trim();
        if !is_name(key, false) {
            return Err("a label name has characters outside [a-zA-Z0-9_] (only equality is known)");
        }
        let after = after.trim_start();
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let (value, tail) = quoted
                .split_once('"')
                .ok_or("a quoted label value is not closed")?;
            (value, tail.trim_start())
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim_end(), &after[end..])
        };
        if value.starts_with(['~', '=']) || value.contains(['{', '}', '"']) {
            return Err("a label value must be quoted or bare (only equality is known)");
        }
        labels.push((key.to_owned(), value.to_owned()));
        rest = match tail.strip_prefix(',') {
            Some(next) => next,
            None if tail.is_empty() => tail,
            None => return Err("labels are separated by ','"),
        };
    }
}

/// Prometheus' legacy naming; only family names may hold colons.
fn is_name(text: &str, colon: bool) -> bool {
    let mut bytes = text.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':'));
    starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<(String, String)>) {
        let spec = Spec::parse(text).expect("valid").expect("not empty");
        (spec.family, spec.labels)
    }

    #[test]
    fn names_and_labels_are_read() {
        assert_eq!(
            parsed("vllm:num_requests_waiting"),
            ("vllm:num_requests_waiting".into(), vec![])
        );
        let both = vec![
            ("a".to_owned(), "x y".to_owned()),
            ("b_1".to_owned(), "2".to_owned()),
        ];
        assert_eq!(parsed(r#" m{a="x y", b_1=2} "#), ("m".into(), both.clone()));
        assert_eq!(parsed(r#"m {a = "x y" ,b_1= 2 ,}"#), ("m".into(), both));
        assert_eq!(parsed("m{}"), ("m".into(), vec![]));
        assert_eq!(Spec::parse("  "), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "a b",
            "1a",
            "m{a}",
            "m{a=b",
            "m}a=b{",
            "m{a!=b}",
            "m{a=~b}",
            "m{a==b}",
            "m{a=\"b}",
            "m{a=\"b\"c}",
            "m{a-b=c}",
            "m{a:b=c}",
            "{a=b}",
            "m{a=b}x",
        ] {
            assert!(Spec::parse(text).is_err(), "{text} was accepted");
        }
    }
}
