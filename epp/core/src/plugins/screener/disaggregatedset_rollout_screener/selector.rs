//! A Kubernetes label selector as text: `app=vllm,tier in (a, b),!canary`.

use std::collections::BTreeMap;

/// Requirements that must all hold.
#[derive(Debug)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    is: Is,
}

#[derive(Debug, PartialEq, Eq)]
enum Is {
    OneOf(Vec<String>),
    /// Holds for objects without the label, too.
    NoneOf(Vec<String>),
    There,
    Absent,
    Above(i64),
    Below(i64),
}

impl Selector {
    /// Reads a selector; the error names the part that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let requirements = parts(text).map(|part| {
            let part = part.trim();
            let wrong = || {
                format!(
                    "'{part}' is no requirement; write key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
                )
            };
            requirement(part).ok_or_else(wrong)
        });
        requirements.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.is {
                Is::OneOf(values) => value.is_some_and(|value| values.contains(value)),
                Is::NoneOf(values) => value.is_none_or(|value| !values.contains(value)),
                Is::There => value.is_some(),
                Is::Absent => value.is_none(),
                Is::Above(bound) => number().is_some_and(|number| number > *bound),
                Is::Below(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

/// What commas outside of parentheses separate.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |next| {
        depth += i32::from(next == '(') - i32::from(next == ')');
        next == ',' && depth == 0
    })
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return of(key, Is::Absent);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return of(key, Is::NoneOf(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return of(key, Is::OneOf(vec![value.trim().to_owned()]));
    }
    if let Some((key, bound)) = part.split_once('>') {
        return of(key, Is::Above(bound.trim().parse().ok()?));
    }
    if let Some((key, bound)) = part.split_once('<') {
        return of(key, Is::Below(bound.trim().parse().ok()?));
    }
    let Some((key, list)) = part.split_once(char::is_whitespace) else {
        return of(part, Is::There);
    };
    let list = list.trim_start();
    let (is_one_of, list) = match list.strip_prefix("notin") {
        Some(list) => (false, list),
        None => (true, list.strip_prefix("in")?),
    };
    let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
    let values = list.split(',').map(|value| value.trim().to_owned()).collect();
    of(
        key,
        if is_one_of {
            Is::OneOf(values)
        } else {
            Is::NoneOf(values)
        },
    )
}

/// `None` for names that no label can have.
fn of(key: &str, is: Is) -> Option<Requirement> {
    let key = key.trim();
    let is_name = |text: &str, more: &str| {
        let mut characters = text.chars();
        characters.all(|next| next.is_ascii_alphanumeric() || "-_.".contains(next) || more.contains(next))
    };
    let values_are_names = match &is {
        Is::OneOf(values) | Is::NoneOf(values) => values.iter().all(|value| is_name(value, "")),
        Is::There | Is::Absent | Is::Above(_) | Is::Below(_) => true,
    };
    let is_key = !key.is_empty() && is_name(key, "/");
    (is_key && values_are_names).then(|| Requirement {
        key: key.to_owned(),
        is,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Selector::parse(selector).unwrap().matches(&labels.collect())
    }

    #[test]
    fn every_operator_of_kubernetes_is_understood() {
        let labels = [("app", "vllm"), ("example.com/tier", "b"), ("size", "12")];
        for (selector, expected) in [
            ("app=vllm", true),
            ("app == vllm , size=12", true),
            ("app=vllm,size=13", false),
            ("app!=vllm", false),
            ("other != x", true),
            ("example.com/tier in (a, b)", true),
            ("example.com/tier in (a,c),app", false),
            ("example.com/tier notin (a,c),app", true),
            ("other notin (a)", true),
            ("!other", true),
            ("! app", false),
            ("size>11,size<13", true),
            ("app>1", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (selector, part) in [
            ("app=vllm,", "''"),
            ("app=a b", "'app=a b'"),
            ("app in a", "'app in a'"),
            ("app in (a", "'app in (a'"),
            ("=a", "'=a'"),
            ("size>big", "'size>big'"),
            ("a,b c", "'b c'"),
        ] {
            let error = Selector::parse(selector).unwrap_err();
            assert!(error.starts_with(part), "{selector}: {error}");
        }
    }
}
