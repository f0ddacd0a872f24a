//! Reads Prometheus' text format, and finds what a query selects in it.

use std::collections::{BTreeMap, BTreeSet};

/// One family as it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) help: String,
    pub(super) labels: BTreeSet<String>,
    /// Upper bounds of a histogram without the infinite one, as written.
    pub(super) buckets: Vec<String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// A scraped page.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    pub(super) families: BTreeMap<String, Family>,
    pub(super) samples: Vec<Sample>,
}

impl Page {
    pub(super) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                name.clone_into(&mut current);
                page.families.entry(current.clone()).or_default().help = String::from(help);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                name.clone_into(&mut current);
                page.families.entry(current.clone()).or_default().kind = String::from(kind);
            } else if let Some(sample) = sample(line) {
                let family = page
                    .families
                    .get_mut(&current)
                    .expect("a family before its samples");
                for (label, value) in &sample.labels {
                    if label == "le" {
                        if value != "+Inf" && !family.buckets.contains(value) {
                            family.buckets.push(value.clone());
                        }
                    } else {
                        family.labels.insert(label.clone());
                    }
                }
                page.samples.push(sample);
            }
        }
        page
    }

    pub(super) fn select(&self, selector: &Selector) -> Vec<&Sample> {
        self.samples
            .iter()
            .filter(|sample| {
                sample.name == selector.name
                    && selector
                        .matchers
                        .iter()
                        .all(|matcher| matcher.fits(&sample.labels))
            })
            .collect()
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (series, _value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample {
            name: series.to_owned(),
            labels: BTreeMap::new(),
        });
    };
    let labels = labels.strip_suffix('}')?;
    let mut pairs = BTreeMap::new();
    for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"")?;
        pairs.insert(label.to_owned(), value.trim_end_matches('"').to_owned());
    }
    Some(Sample {
        name: name.to_owned(),
        labels: pairs,
    })
}

/// A vector selector of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    pub(super) name: String,
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq)]
enum Matcher {
    Equal(String, String),
    Unequal(String, String),
    /// Alternatives between `|`, `.*` and `.+` at most at the ends.
    Like(String, String),
}

impl Matcher {
    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |label: &String| labels.get(label).map_or("", String::as_str);
        match self {
            Self::Equal(label, wanted) => value(label) == wanted,
            Self::Unequal(label, wanted) => value(label) != wanted,
            Self::Like(label, pattern) => pattern.split('|').any(|part| match part {
                ".*" => true,
                ".+" => !value(label).is_empty(),
                exact => value(label) == exact,
            }),
        }
    }
}

/// Every selector in `query`: names of ours, with the braces that follow.
pub(super) fn selectors(query: &str) -> Vec<Selector> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_name) {
        let tail = &rest[start..];
        let end = tail.find(|c: char| !is_name(c)).unwrap_or(tail.len());
        let (name, after) = tail.split_at(end);
        rest = after;
        let is_ours = ["llm_d_", "inference_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !is_ours || after.starts_with('=') || after.starts_with('"') {
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(braced) = after.strip_prefix('{') {
            let (inside, behind) = braced.split_once('}').expect("a closing brace");
            matchers = inside
                .split(',')
                .filter(|part| !part.is_empty())
                .map(matcher)
                .collect();
            rest = behind;
        }
        found.push(Selector {
            name: name.to_owned(),
            matchers,
        });
    }
    found
}

fn matcher(text: &str) -> Matcher {
    let unquoted = |value: &str| value.trim().trim_matches('"').to_owned();
    let pairs = [("=~", 0), ("!=", 1), ("=", 2)];
    let (operator, kind) = pairs
        .into_iter()
        .find(|(operator, _)| text.contains(operator))
        .expect("an operator");
    let (label, value) = text.split_once(operator).expect("an operator");
    let (label, value) = (label.trim().to_owned(), unquoted(value));
    match kind {
        0 => Matcher::Like(label, value),
        1 => Matcher::Unequal(label, value),
        _ => Matcher::Equal(label, value),
    }
}

#[test]
fn queries_are_taken_apart() {
    let query =
        "sum by (name) (rate(llm_d_epp_a_total{x=\"1\", y!=\"\", z=~\"p|q\"}[5m])) / inference_pool_b > 0";
    let found = selectors(query);
    let names: Vec<&str> = found.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["llm_d_epp_a_total", "inference_pool_b"]);
    let page = Page::parse(
        "# HELP llm_d_epp_a_total h\n# TYPE llm_d_epp_a_total counter\nllm_d_epp_a_total{x=\"1\",y=\"2\",z=\"q\"} 3\n",
    );
    assert_eq!(page.select(&found[0]).len(), 1);
    assert!(page.select(&found[1]).is_empty());
}
