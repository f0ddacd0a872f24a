//! `passthrough-parser`: the fallback that reads nothing.

use super::Parser;

/// Takes every path that no other parser claims: the body stays unread, an empty model is fine,
/// responses are not read.
pub static PASSTHROUGH_PARSER: Parser = Parser {
    type_name: "passthrough-parser",
    paths: &[],
    protocols: &[],
    rewrites_model: false,
    reads_response: false,
};
