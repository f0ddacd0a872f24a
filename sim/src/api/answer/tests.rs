use std::sync::Arc;

use super::*;

fn plan(mode: Mode, request: &str, text: &str, cap: usize) -> Answer {
    let request = Request::parse(request.as_bytes()).unwrap();
    let prompt = Prompt {
        tokens: tokens::encode(text).into(),
        echo: text.to_owned(),
        begun: None,
        media: Vec::new(),
    };
    Answer::plan(mode, 1, &request, &prompt, 0, cap)
}

#[test]
fn the_cap_ends_an_echo_by_length_and_the_text_by_stop() {
    let whole = plan(Mode::Echo, "{}", "one two three", 10);
    assert_eq!(
        (whole.text.as_str(), whole.finish),
        ("one two three", FinishReason::Stop)
    );
    let cut = plan(Mode::Echo, "{}", "one two three", 2);
    assert_eq!(
        (cut.text.as_str(), cut.finish, cut.tokens.len()),
        ("one two", FinishReason::Length, 2)
    );
    let endless = plan(Mode::Echo, r#"{"ignore_eos": true}"#, "one two", 5);
    assert_eq!((endless.tokens.len(), endless.finish), (5, FinishReason::Length));
}

#[test]
fn a_stop_text_across_tokens_ends_the_answer_before_it() {
    let answer = plan(
        Mode::Echo,
        r#"{"stop": ["o th", "zzz"]}"#,
        "one two three four",
        10,
    );
    assert_eq!(answer.text, "one tw");
    assert_eq!(answer.finish, FinishReason::Stop);
    assert_eq!(answer.stop_reason, Some(StopReason::Text("o th".into())));
    assert_eq!(
        answer.tokens.len(),
        3,
        "the token that completes the stop text counts"
    );
    assert_eq!(
        (0..3).map(|i| answer.piece(i, i + 1)).collect::<String>(),
        "one tw"
    );
    let kept = plan(
        Mode::Echo,
        r#"{"stop": "two", "include_stop_str_in_output": true}"#,
        "one two three",
        10,
    );
    assert_eq!(kept.text, "one two");
}

#[test]
fn a_stop_counts_only_after_the_least_tokens() {
    let answer = plan(Mode::Echo, r#"{"stop": "b", "min_tokens": 3}"#, "b b b b", 10);
    assert_eq!((answer.text.as_str(), answer.tokens.len()), ("b b ", 3));
    let id = tokens::id(" two");
    let answer = plan(
        Mode::Echo,
        &format!(r#"{{"stop_token_ids": [{id}]}}"#),
        "one two three",
        10,
    );
    assert_eq!(
        (answer.text.as_str(), answer.stop_reason),
        ("one", Some(StopReason::Token(id)))
    );
}

#[test]
fn a_random_answer_is_made_of_its_tokens_and_differs_by_choice() {
    let request = Request::parse(br#"{"ignore_eos": true}"#).unwrap();
    let prompt = Prompt {
        tokens: Arc::from([1, 2, 3]),
        echo: String::new(),
        begun: None,
        media: Vec::new(),
    };
    let plan = |choice| Answer::plan(Mode::Random, 1, &request, &prompt, choice, 40);
    assert_eq!(plan(0).text, plan(0).text);
    assert_ne!(plan(0).text, plan(1).text);
    let answer = plan(0);
    assert_eq!(
        tokens::encode(&answer.text),
        &*answer.tokens,
        "the next turn finds the same tokens"
    );
    assert_eq!((answer.tokens.len(), answer.finish), (40, FinishReason::Length));
}

#[test]
fn an_answer_that_was_begun_goes_on_where_it_stopped() {
    let chat = |members: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"Tell me"}}{members}}}"#);
        let mut request = Request::parse(body.as_bytes()).unwrap();
        request.check(crate::api::request::Kind::Chat).unwrap();
        let prompts = crate::api::prompt::prompts(&mut request, crate::api::request::Kind::Chat).unwrap();
        (request, prompts.into_iter().next().unwrap())
    };
    let (request, prompt) = chat("]");
    let whole = Answer::plan(Mode::Random, 7, &request, &prompt, 0, 100);
    for sent in [1, 2, whole.tokens.len() - 1] {
        let begun = serde_json::Value::from(whole.piece(0, sent));
        let (request, prompt) = chat(&format!(
            r#",{{"role":"assistant","content":{begun}}}],"continue_final_message":true,"add_generation_prompt":false"#
        ));
        let rest = Answer::plan(Mode::Random, 7, &request, &prompt, 0, 100 - sent);
        assert_eq!(rest.text, whole.text[whole.ends[sent - 1]..]);
        assert_eq!(rest.tokens[..], whole.tokens[sent..]);
        assert_eq!((rest.finish, rest.ends.len()), (whole.finish, rest.tokens.len()));
    }
    let (request, prompt) =
        chat(r#",{"role":"assistant","content":"not ours"}],"continue_final_message":true"#);
    assert!(
        !Answer::plan(Mode::Random, 7, &request, &prompt, 0, 10)
            .text
            .is_empty()
    );
}
