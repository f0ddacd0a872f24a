//! `vllmhttp-parser`: vLLM's API for requests that are tokenized already.

use llmd_openai::BodyKind;

use super::{Parser, Path};

/// Claims `inference/v1/generate`.
pub static VLLM_HTTP_PARSER: Parser = Parser {
    type_name: "vllmhttp-parser",
    paths: &[Path::read("inference/v1/generate", BodyKind::VllmGenerate)],
    protocols: &["http", "kubernetes.io/h2c"],
};
