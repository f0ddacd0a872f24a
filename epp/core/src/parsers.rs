//! Which API a request path speaks: longest path suffix wins, a parser without paths takes the rest.

mod anthropic;
mod openai;
mod passthrough;
mod sglang_http;
mod vertex_ai;
mod vllm_grpc;
mod vllm_http;

use llmd_openai::BodyKind;

pub use anthropic::ANTHROPIC_PARSER;
pub use openai::OPENAI_PARSER;
pub use passthrough::PASSTHROUGH_PARSER;
pub use sglang_http::SGLANG_HTTP_PARSER;
pub use vertex_ai::VERTEX_AI_PARSER;
pub use vllm_grpc::VLLM_GRPC_PARSER;
pub use vllm_http::VLLM_HTTP_PARSER;

/// All parsers of this build.
static ALL: [&Parser; 7] = [
    &ANTHROPIC_PARSER,
    &OPENAI_PARSER,
    &PASSTHROUGH_PARSER,
    &SGLANG_HTTP_PARSER,
    &VERTEX_AI_PARSER,
    &VLLM_GRPC_PARSER,
    &VLLM_HTTP_PARSER,
];
/// Those of a configuration that names none, in upstream's order.
pub const DEFAULT_TYPES: [&str; 4] = [
    "openai-parser",
    "anthropic-parser",
    "vllmhttp-parser",
    "passthrough-parser",
];

/// The path looked up when a request names none.
pub const DEFAULT_PATH: &str = "/v1/completions";

/// One request format. Upstream's `Parser` plugins (llm-d-router, requesthandling/parsers).
#[derive(Debug)]
pub struct Parser {
    /// Plugin type, as configurations name it.
    pub type_name: &'static str,
    /// Claimed paths. Empty: a fallback.
    pub paths: &'static [Path],
    /// Application protocols of pools this parser can serve; empty means any.
    pub protocols: &'static [&'static str],
}

/// A claimed path.
#[derive(Debug)]
pub struct Path {
    /// End of the path, without outer slashes.
    pub suffix: &'static str,
    /// The suffix must be the whole path.
    pub is_exact: bool,
    /// How the body is scanned; `None` leaves it unread.
    pub body: Option<BodyKind>,
    /// The response is nobody's business: the stream of the picker ends with the request.
    pub skips_response: bool,
}

impl Path {
    /// Paths that end in `suffix`, with a body of `kind`.
    pub const fn read(suffix: &'static str, kind: BodyKind) -> Self {
        Self {
            suffix,
            is_exact: false,
            body: Some(kind),
            skips_response: false,
        }
    }

    /// Paths that end in `suffix` and pass as they are.
    pub const fn unread(suffix: &'static str) -> Self {
        Self {
            suffix,
            is_exact: false,
            body: None,
            skips_response: true,
        }
    }

    fn claims(&self, path: &str) -> bool {
        if self.is_exact {
            path == self.suffix
        } else {
            path.ends_with(self.suffix)
        }
    }
}

/// What a path resolved to.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The parser in charge.
    pub parser: &'static Parser,
    /// How the body is scanned; `None` leaves it unread.
    pub body: Option<BodyKind>,
    /// The response is not looked at.
    pub skips_response: bool,
}

/// A parser type this build does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("parser type '{0}' is not registered")]
pub struct UnknownParser(pub String);

/// The configured parsers, ready for lookups.
#[derive(Debug)]
pub struct Parsers {
    active: Vec<&'static Parser>,
}

impl Default for Parsers {
    /// The parsers of a configuration that names none.
    fn default() -> Self {
        let is_default = |parser: &&&Parser| DEFAULT_TYPES.contains(&parser.type_name);
        Self {
            active: ALL.iter().filter(is_default).copied().collect(),
        }
    }
}

impl Parsers {
    /// Parsers by plugin type, in configuration order; an empty list means [`Self::default`].
    /// A type named twice counts once, and so does every fallback after the first.
    pub fn from_types<'a>(types: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownParser> {
        let mut active: Vec<&'static Parser> = Vec::new();
        for name in types {
            let parser = ALL
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
            for claimed in parser.paths {
                let length = claimed.suffix.len();
                if best.is_none_or(|(longest, _)| length > longest) && claimed.claims(path) {
                    let claim = Claim {
                        parser,
                        body: claimed.body,
                        skips_response: claimed.skips_response,
                    };
                    best = Some((length, claim));
                }
            }
        }
        best.map(|(_, claim)| claim).or_else(|| {
            let fallback = self.active.iter().find(|parser| parser.paths.is_empty())?;
            Some(Claim {
                parser: fallback,
                body: None,
                skips_response: false,
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
    use llmd_openai::grpc::{Method, Service};

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
        assert_eq!(body("/v1/messages"), Some(BodyKind::AnthropicMessages));
        assert_eq!(body("/inference/v1/generate"), Some(BodyKind::VllmGenerate));
        let counting = parsers.resolve("/v1/messages/count_tokens").expect("claimed");
        assert!(counting.body.is_none() && counting.skips_response);
        assert_eq!(counting.parser.type_name, "anthropic-parser");
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
    fn sglang_s_path_is_exact() {
        let parsers = Parsers::from_types(["sglanghttp-parser"]).expect("known");
        assert!(parsers.resolve("/generate").is_some());
        assert!(parsers.resolve("/inference/v1/generate").is_none());
    }

    #[test]
    fn grpc_parsers_claim_their_methods_alone() {
        let parsers = Parsers::from_types(["vllmgrpc-parser"]).expect("known");
        let body = |path: &str| parsers.resolve(path).map(|claim| claim.body);
        let generate = Some(BodyKind::Grpc(Service::Vllm(Method::Generate)));
        assert_eq!(body("/vllm.grpc.engine.VllmEngine/Generate"), Some(generate));
        assert_eq!(body("/vllm.grpc.engine.VllmEngine/Abort"), None);
        assert_eq!(body("/v1/completions"), None);
        assert!(parsers.support("kubernetes.io/h2c") && !parsers.support("http"));
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
