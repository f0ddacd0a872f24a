//! `passthrough-parser`: takes every request as it is.

use super::Parser;

/// The fallback: reads nothing, changes nothing.
pub static PASSTHROUGH_PARSER: Parser = Parser {
    type_name: "passthrough-parser",
    paths: &[],
    protocols: &[],
};
