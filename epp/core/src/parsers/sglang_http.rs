//! `sglanghttp-parser`: SGLang's native API for requests that are tokenized already.

use llmd_openai::BodyKind;

use super::{Parser, Path};

/// Claims exactly `/generate`; its bodies name no model.
pub static SGLANG_HTTP_PARSER: Parser = Parser {
    type_name: "sglanghttp-parser",
    paths: &[Path {
        is_exact: true,
        ..Path::read("generate", BodyKind::SglangGenerate)
    }],
    protocols: &["http", "kubernetes.io/h2c"],
};
