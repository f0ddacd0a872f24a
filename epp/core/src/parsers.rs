//! Which API a request path speaks: longest path suffix wins, a parser without paths takes the rest.

mod openai;
mod passthrough;

use llmd_openai::BodyKind;

pub use openai::OPENAI_PARSER;
pub use passthrough::PASSTHROUGH_PARSER;

/// The path looked up when a request names none.
pub const DEFAULT_PATH: &str = "/v1/completions";

/// One request format. Upstream's `Parser` plugins (llm-d-router, requesthandling/parsers).
#[derive(Debug)]
pub struct Parser {
    /// Plugin type, as configurations name it.
    pub type_name: &'static str,
    /// Claimed path suffixes without outer slashes, and the body behind each. Empty: a fallback.
    pub paths: &'static [(&'static str, BodyKind)],
    /// Application protocols of pools this parser can serve; empty means any.
    pub protocols: &'static [&'static str],
    /// Whether the model of a body may be replaced.
    pub rewrites_model: bool,
    /// Whether responses are read for usage.
    pub reads_response: bool,
}

/// What a path resolved to.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The parser in charge.
    pub parser: &'static Parser,
    /// How the body is scanned; `None` leaves it unread.
    pub body: Option<BodyKind>,
}

/// A parser type this build does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("parser type '{0}' is not registered; known parsers: openai-parser, passthrough-parser")]
pub struct UnknownParser(pub String);

/// The configured parsers, ready for lookups.
#[derive(Debug)]
pub struct Parsers {
    active: Vec<&'static Parser>,
}

impl Default for Parsers {
    /// The parsers of a configuration that names none.
    fn default() -> Self {
        Self {
            active: vec![&OPENAI_PARSER, &PASSTHROUGH_PARSER],
        }
    }
}

impl Parsers {
    /// Parsers by plugin type, in configuration order; an empty list means [`Self::default`].
    /// A type named twice counts once, and so does every fallback after the first.
    pub fn from_types<'a>(types: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownParser> {
        let mut active: Vec<&'static Parser> = Vec::new();
        for name in types {
            let parser = [&OPENAI_PARSER, &PASSTHROUGH_PARSER]
                .into_iter()
                .find(|parser| parser.type_name == name)
                .ok_or_else(|| UnknownParser(name.to_owned()))?;
            let is_listed = active.iter().any(|known| known.type_name == name);
            let is_second_fallback =
                parser.paths.is_empty() && active.iter().any(|known| known.paths.is_empty());
            if !is_listed && !is_second_fallback {
                active.push(parser);
            }
        }
        if active.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self { active })
    }

    /// The parser for `path` (without its query), or `None` when no parser claims it.
    pub fn resolve(&self, path: &str) -> Option<Claim> {
        let path = path.trim_matches(|c: char| c == '/' || c.is_whitespace());
        let mut best: Option<(usize, Claim)> = None;
        for parser in &self.active {
            for (suffix, kind) in parser.paths {
                let is_longer = best.is_none_or(|(length, _)| suffix.len() > length);
                if is_longer && path.ends_with(suffix) {
                    best = Some((
                        suffix.len(),
                        Claim {
                            parser,
                            body: Some(*kind),
                        },
                    ));
                }
            }
        }
        best.map(|(_, claim)| claim).or_else(|| {
            let fallback = self.active.iter().find(|parser| parser.paths.is_empty())?;
            Some(Claim {
                parser: fallback,
                body: None,
            })
        })
    }

    /// Whether every parser can serve a pool of application protocol `protocol`
    /// (`http` or `kubernetes.io/h2c`).
    pub fn support(&self, protocol: &str) -> bool {
        self.active
            .iter()
            .all(|parser| parser.protocols.is_empty() || parser.protocols.contains(&protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_suffix_wins_and_slashes_do_not_count() {
        let parsers = Parsers::default();
        let body = |path: &str| parsers.resolve(path).and_then(|claim| claim.body);
        assert_eq!(body("/v1/chat/completions"), Some(BodyKind::ChatCompletions));
        assert_eq!(body("/v1/chat/completions/"), Some(BodyKind::ChatCompletions));
        assert_eq!(body("/v1/completions"), Some(BodyKind::Completions));
        assert_eq!(body("/v1/completions/render"), Some(BodyKind::Completions));
        assert_eq!(body("/tenant/a/v1/embeddings"), Some(BodyKind::Embeddings));
        assert_eq!(body("/v1/images/generations"), Some(BodyKind::Images));
        assert_eq!(body("/v1/models"), None);
        let fallback = parsers.resolve("/v1/models").expect("the fallback takes it");
        assert_eq!(fallback.parser.type_name, "passthrough-parser");
    }

    #[test]
    fn without_a_fallback_unknown_paths_are_unclaimed() {
        let parsers = Parsers::from_types(["openai-parser", "openai-parser"]).expect("known");
        assert!(parsers.resolve("/v1/models").is_none());
        assert_eq!(parsers.active.len(), 1);
    }

    #[test]
    fn an_unknown_parser_is_refused_by_name() {
        let error = Parsers::from_types(["gemini-parser"]).expect_err("unknown");
        assert!(error.to_string().contains("'gemini-parser'"), "{error}");
    }

    #[test]
    fn protocols_are_checked_against_each_parser() {
        let parsers = Parsers::default();
        assert!(parsers.support("http") && parsers.support("kubernetes.io/h2c"));
        assert!(!parsers.support("kubernetes.io/ws"));
    }
}
