//! Values as cel-go gives them where it gives one, and what is refused.

use super::*;

const USAGE: Usage = Usage {
    prompt: 7,
    completion: 10,
    total: 17,
    cached: 4,
};

fn number(text: &str) -> Option<f64> {
    Number::parse(text).unwrap().of(&USAGE)
}

fn holds(text: &str) -> Option<bool> {
    Condition::parse(text).unwrap().of(&USAGE)
}

#[test]
fn numbers_are_computed_with_the_precedence_of_cel() {
    for (text, value) in [
        ("usage.prompt_tokens", 7.0),
        ("usage['completion_tokens'] + usage[\"total_tokens\"]", 27.0),
        ("usage.prompt_token_details.cached_tokens", 4.0),
        (
            "usage.prompt_tokens + 2.0 * usage.completion_tokens - 1.5e1",
            12.0,
        ),
        ("usage.prompt_tokens + 3 * usage.completion_tokens", 37.0),
        ("(1 + 2) * -3", -9.0),
        ("7 / 2 * 2", 6.0),
        ("7.0 / 2.0", 3.5),
        ("int(usage.total_tokens) % 5", 2.0),
        ("10 - 3 - 2", 5.0),
        ("double(7) / 2.0", 3.5),
        ("usage.prompt_tokens > 5 && true ? 1 : 2", 1.0),
        ("false ? 1 : true ? 2 : 3", 2.0),
        ("has(usage.prompt_token_details) ? 1 : 0", 1.0),
        ("- - 2", 2.0),
    ] {
        assert_eq!(number(text), Some(value), "{text}");
    }
}

#[test]
fn conditions_compare_and_join() {
    for (text, value) in [
        ("usage.prompt_tokens == 7", true),
        ("usage.prompt_tokens != 7.0 || usage.total_tokens >= 17", true),
        ("!(usage.total_tokens <= 16) && 1 < 2", true),
        ("true == false", false),
        ("has(usage.prompt_token_details.cached_tokens)", true),
        ("false && 1 / 0 == 1", false),
    ] {
        assert_eq!(holds(text), Some(value), "{text}");
    }
    let none = Condition::parse("has(usage.prompt_token_details)").unwrap();
    assert_eq!(none.of(&Usage::default()), Some(false));
}

#[test]
fn what_cannot_be_computed_is_nothing() {
    for text in ["1 / 0", "9223372036854775807 + 1", "int(1.0e300)", "1 % 0"] {
        assert_eq!(number(text), None, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let deep = "(".repeat(100);
    for (text, part) in [
        ("usage", "'usage' is no number of a response"),
        ("usage.tokens", "'usage.tokens' is no number of a response"),
        ("usage.prompt_token_details", "cached_tokens"),
        ("size(usage)", "the function 'size' is not supported"),
        ("request.size", "'request' is not known"),
        ("1 +", "ends too early"),
        ("1 2", "'2' at character 3"),
        ("\"a\"", "'\"' at character 1"),
        ("0x10", "'0x10' is no number"),
        (
            "1 + true",
            "'+' cannot be applied to an integer and a truth value",
        ),
        ("usage.prompt_tokens % 2", "int()"),
        ("1 ? 2 : 3", "'?' needs true or false"),
        ("true ? 1 : false", "'? :' needs two numbers"),
        ("!1", "'!' cannot"),
        ("-true", "'-' cannot"),
        ("int(true)", "'int()' cannot"),
        ("true", "must be a number"),
        ("usage[\"a", "not closed"),
        (&deep, "nested deeper than 64"),
    ] {
        let error = Number::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(
        Condition::parse("1")
            .unwrap_err()
            .contains("must be true or false")
    );
}
