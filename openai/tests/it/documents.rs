//! Strategies for JSON texts that look like request bodies, with escapes, duplicates and blanks.

use proptest::prelude::*;

/// A JSON string, raw.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -!#-\\[\\]-~äß漢😀\u{7f}]{0,12}",
        1 => prop::sample::select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\u00e9", "\\ud83d\\ude00", "\\u0000", "\\u20ac"])
            .prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "0",
        "-0",
        "7",
        "-12",
        "1.5",
        "2e3",
        "4294967296",
        "12345678901234567890123",
        "1E-2",
    ])
    .prop_map(String::from)
}

fn name() -> impl Strategy<Value = String> {
    let known = [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "tools",
        "prompt",
        "input",
        "items",
        "stream",
        "cache_salt",
        "max_tokens",
        "max_completion_tokens",
        "stream_options",
        "usage",
        "m\\u006fdel",
    ];
    prop_oneof![
        8 => prop::sample::select(known.to_vec()).prop_map(|known| format!("\"{known}\"")),
        1 => text(),
    ]
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n\t", "\r\n  "])
}

fn list(open: char, close: char, members: &[String]) -> String {
    format!("{open}{}{close}", members.join(","))
}

fn padded(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (blank(), value, blank()).prop_map(|(before, value, after)| format!("{before}{value}{after}"))
}

/// Any JSON value.
pub(crate) fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        text(),
        number(),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(String::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let member = (name(), inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            prop::collection::vec(padded(inner), 0..6).prop_map(|items| list('[', ']', &items)),
            prop::collection::vec(padded(member), 0..6).prop_map(|members| list('{', '}', &members)),
        ]
    })
}

/// A content block, its members in any order.
fn block() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["text", "image_url", "input_audio", "refusal"]);
    let member = prop_oneof![
        kind.prop_map(|kind| format!("\"type\":\"{kind}\"")),
        text().prop_map(|text| format!("\"text\":{text}")),
        value().prop_map(|value| format!("\"image_url\":{value}")),
    ];
    prop::collection::vec(member, 0..4).prop_map(|members| list('{', '}', &members))
}

fn message() -> impl Strategy<Value = String> {
    let content = prop_oneof![
        3 => text(),
        2 => prop::collection::vec(block(), 0..4).prop_map(|blocks| list('[', ']', &blocks)),
        1 => value(),
    ];
    let member = prop_oneof![
        text().prop_map(|role| format!("\"role\":{role}")),
        content.prop_map(|content| format!("\"content\":{content}")),
        (name(), value()).prop_map(|(name, value)| format!("{name}:{value}")),
    ];
    prop::collection::vec(member, 0..5).prop_map(|members| list('{', '}', &members))
}

/// A body that most of the time has what a chat or completions request needs.
pub(crate) fn body() -> impl Strategy<Value = String> {
    let prompt = prop_oneof![
        text(),
        prop::collection::vec(text(), 1..4).prop_map(|items| list('[', ']', &items)),
        Just("[1,2,4294967295]".to_owned()),
        Just("[[1],[2,3]]".to_owned()),
        value(),
    ];
    let member = prop_oneof![
        2 => text().prop_map(|model| format!("\"model\":{model}")),
        4 => prop::collection::vec(message(), 1..4).prop_map(|all| format!("\"messages\":{}", list('[', ']', &all))),
        1 => value().prop_map(|tools| format!("\"tools\":{tools}")),
        2 => prompt.prop_map(|prompt| format!("\"prompt\":{prompt}")),
        1 => value().prop_map(|input| format!("\"input\":{input}")),
        1 => value().prop_map(|items| format!("\"items\":{items}")),
        1 => any::<bool>().prop_map(|stream| format!("\"stream\":{stream}")),
        1 => number().prop_map(|cap| format!("\"max_tokens\":{cap}")),
        1 => value().prop_map(|other| format!("\"metadata\":{other}")),
    ];
    padded(prop::collection::vec(padded(member), 0..8).prop_map(|members| list('{', '}', &members)))
}
