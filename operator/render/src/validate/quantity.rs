//! Kubernetes quantities in requests and limits.

use std::collections::BTreeMap;

use crate::field_error::{FieldError, Problem};

const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Each value is a quantity, and no request is above its limit.
pub(crate) fn check(
    field: &str,
    requests: &BTreeMap<String, String>,
    limits: &BTreeMap<String, String>,
    errors: &mut Vec<FieldError>,
) {
    for (part, values) in [("requests", requests), ("limits", limits)] {
        for (name, value) in values {
            if parse(value).is_none() {
                let message = "is no quantity: write a number with a suffix, such as 500m, 8 or 96Gi";
                errors.push(
                    FieldError::new(format!("{field}.{part}.{name}"), Problem::Invalid, message).value(value),
                );
            }
        }
    }
    for (name, request) in requests {
        let limit = limits.get(name);
        if let (Some(wanted), Some(most)) = (parse(request), limit.and_then(|limit| parse(limit)))
            && wanted > most
        {
            let message = format!("is above the limit {}", limit.map_or("", String::as_str));
            errors.push(
                FieldError::new(format!("{field}.requests.{name}"), Problem::Invalid, message).value(request),
            );
        }
    }
}

/// The number that a quantity stands for.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
        .unwrap_or((text, 1.0));
    let plain = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    plain
        .then(|| number.parse::<f64>().ok().map(|number| number * factor))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_parsed_and_compared() {
        assert_eq!(parse("96Gi"), Some(96.0 * 1_073_741_824.0));
        assert_eq!(parse("500m"), Some(0.5));
        for wrong in ["", "Gi", "1 Gi", "-1", "1GiB", "one"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let map = |value: &str| BTreeMap::from([("memory".to_owned(), value.to_owned())]);
        let mut errors = Vec::new();
        check("r", &map("2Gi"), &map("1Gi"), &mut errors);
        assert_eq!(errors[0].field, "r.requests.memory");
    }
}
