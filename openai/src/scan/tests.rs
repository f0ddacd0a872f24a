use super::*;
use crate::{ModelField, PromptInput, Span};

fn scan(kind: BodyKind, body: &str) -> Result<RequestFacts, ScanError> {
    let mut scanner = RequestScanner::new(kind, Limits::default());
    scanner.push(body.as_bytes())?;
    scanner.finish()
}

fn text(facts: &RequestFacts) -> Vec<String> {
    let of = |prompt: &crate::Prompt| match &prompt.input {
        PromptInput::Text(text) => String::from_utf8(text.clone()).unwrap(),
        PromptInput::Tokens(tokens) => format!("{tokens:?}"),
    };
    facts.prompts.iter().map(of).collect()
}

fn chat(body: &str) -> RequestFacts {
    scan(BodyKind::ChatCompletions, body).unwrap()
}

#[test]
fn chat_facts_are_read() {
    let body = r#"{"model":"m\u0031","messages":[{"role":"user","content":"hi"}],"stream":true,
        "stream_options":{"include_usage":true},"max_tokens":5,"max_completion_tokens":7,"cache_salt":"s"}"#;
    let facts = chat(body);
    assert_eq!(
        facts.model,
        Some(ModelField {
            value: "m1".into(),
            span: Some(Span { start: 9, end: 18 })
        })
    );
    assert!(facts.stream && facts.include_usage);
    assert_eq!(facts.max_output_tokens, Some(7));
    assert_eq!(facts.cache_salt.as_deref(), Some("s"));
    assert_eq!(text(&facts), ["userhi"]);
}

#[test]
fn only_top_level_members_count() {
    let facts = chat(
        r#"{"messages":[{"role":"user","content":"a","model":"x","stream":true}],
            "tools":[{"model":"y"}],"metadata":{"model":"z","messages":[{"role":"no","content":"no"}]}}"#,
    );
    assert_eq!(facts.model, None);
    assert!(!facts.stream);
    assert_eq!(text(&facts), [r#"[{"model":"y"}]usera"#]);
}

#[test]
fn tools_come_first_wherever_they_stand() {
    let tools = r#""tools":[ {"type":"function"} ]"#;
    let messages = r#""messages":[{"content":"q","role":"user"},{"role":"assistant","content":null}]"#;
    let wanted = r#"[ {"type":"function"} ]userqassistant"#;
    assert_eq!(text(&chat(&format!("{{{tools},{messages}}}"))), [wanted]);
    assert_eq!(text(&chat(&format!("{{{messages},{tools}}}"))), [wanted]);
}

#[test]
fn content_blocks_give_their_text_and_media_are_counted() {
    let facts = chat(
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},
            {"type":"image_url","image_url":{"url":"data:xx","text":"no"}},{"text":"b","type":"text"},
            {"text":"no","type":"input_audio"}, "c", ["d"], {"text":"e","text":"f"}],
            "tool_calls":[{"text":"no","type":"function"}]},{"role":"x","content":"y"}]}"#,
    );
    assert_eq!(text(&facts), ["userabcfxy"]);
    assert_eq!(facts.media_parts, 2);
}

#[test]
fn the_last_of_duplicate_members_wins() {
    let facts = chat(
        r#"{"model":"a","messages":[{"role":"r","content":"old"}],"model":"bb","stream":true,"stream":false,
            "max_tokens":1,"max_tokens":"x","messages":[{"role":"one","content":[{"type":"image"}],"content":"new","role":"2"}]}"#,
    );
    assert_eq!(facts.model.unwrap().value, "bb");
    assert!(!facts.stream);
    assert_eq!(facts.max_output_tokens, None);
    assert_eq!(facts.media_parts, 0);
    let facts = chat(r#"{"model":"a","model":null,"messages":[{"role":"r","content":"c","role":"long"}]}"#);
    assert_eq!(
        (facts.model.clone(), text(&facts)),
        (None, vec!["longc".to_string()])
    );
}

#[test]
fn a_value_that_is_no_text_takes_back_what_its_member_said() {
    for (message, wanted, media_parts) in [
        (r#"{"role":"r","content":"c","content":7}"#, "r", 0),
        (
            r#"{"role":"r","content":[{"type":"image"},"x"],"content":{}}"#,
            "r",
            0,
        ),
        (r#"{"role":"r","content":"c","role":[]}"#, "c", 0),
        (r#"{"content":[{"type":"image","type":null,"text":"k"}]}"#, "k", 0),
        (
            r#"{"content":[{"type":"image","type":[1],"text":"k","text":{}}]}"#,
            "",
            0,
        ),
        (
            r#"{"content":[{"text":"k","text":false,"type":"audio","x":{"type":"text"}}]}"#,
            "",
            1,
        ),
    ] {
        let facts = chat(&format!(r#"{{"messages":[{message}]}}"#));
        assert_eq!(
            (text(&facts), facts.media_parts),
            (vec![wanted.to_owned()], media_parts),
            "{message}"
        );
    }
}

#[test]
fn completions_prompts_have_four_shapes() {
    for (prompt, wanted) in [
        (r#""a""#, vec!["a"]),
        (r#"["a","","c"]"#, vec!["a", "", "c"]),
        ("[1,2,4294967295]", vec!["[1, 2, 4294967295]"]),
        ("[[1,2],[3]]", vec!["[1, 2]", "[3]"]),
    ] {
        let body = format!(r#"{{"model":"m","prompt":{prompt},"max_tokens":3}}"#);
        let facts = scan(BodyKind::Completions, &body).unwrap();
        assert_eq!(text(&facts), wanted);
        assert_eq!(facts.max_output_tokens, Some(3));
    }
}

#[test]
fn a_body_without_its_field_gets_upstreams_text() {
    use BodyKind::*;
    for (kind, body, field) in [
        (
            ChatCompletions,
            "{}",
            "invalid chat completions request: must have valid messages field",
        ),
        (
            ChatCompletions,
            r#"{"messages":null}"#,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            ChatCompletions,
            r#"{"messages":[]}"#,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            ChatCompletions,
            r#"{"messages":"x"}"#,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            ChatCompletions,
            r#"{"messages":[{},7]}"#,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            ChatCompletions,
            r#"{"messages":[{},[]]}"#,
            "invalid chat completions request: must have valid messages field",
        ),
        (
            Completions,
            r#"{"messages":[{}]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":["a",1]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[-1]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[1,2,[]]]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[1,[]]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":["a",[]]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[],1]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[],"a"]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[1],{}]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[true]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[1],2]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[[["a"]]]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":[4294967296]}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Completions,
            r#"{"prompt":{"a":1}}"#,
            "invalid completions request: must have prompt field",
        ),
        (
            Embeddings,
            r#"{"prompt":"a"}"#,
            "invalid embeddings request: must have input field",
        ),
        (
            Responses,
            r#"{"input":null}"#,
            "invalid responses request: must have input field",
        ),
        (
            Conversations,
            "{}",
            "invalid conversations request: must have items field",
        ),
        (
            Images,
            r#"{"prompt":["a"]}"#,
            "invalid images generations request: must have prompt field",
        ),
    ] {
        assert_eq!(scan(kind, body), Err(ScanError::Invalid(field)), "{body}");
    }
}

#[test]
fn inputs_of_the_other_apis_are_their_json() {
    use BodyKind::*;
    for (kind, body, wanted) in [
        (Embeddings, r#"{"input": "a\n" }"#, vec![r#""a\n""#]),
        (Embeddings, r#"{"input":["a", "b"]}"#, vec![r#"["a", "b"]"#]),
        (Embeddings, r#"{"input":[ 1,2]}"#, vec!["[1, 2]"]),
        (Embeddings, r#"{"input":[[1],[2]]}"#, vec!["[1]", "[2]"]),
        (
            Responses,
            r#"{"input":[{"role":"user","content":"x"}],"max_output_tokens":9}"#,
            vec![r#"[{"role":"user","content":"x"}]"#],
        ),
        (
            Conversations,
            r#"{"items":[{"type":"message"}]}"#,
            vec![r#"[{"type":"message"}]"#],
        ),
        (Images, r#"{"prompt":"cat"}"#, vec!["cat"]),
    ] {
        assert_eq!(text(&scan(kind, body).unwrap()), wanted, "{body}");
    }
}

#[test]
fn wrong_types_name_the_field() {
    for (body, message) in [
        (
            r#"{"model":1}"#,
            "error unmarshaling request bodyMap: field model must be a string (byte 9)",
        ),
        (
            r#"{"stream":"yes"}"#,
            "error unmarshaling request bodyMap: field stream must be true or false (byte 10)",
        ),
        (
            r#"{"cache_salt":[]}"#,
            "error unmarshaling request bodyMap: field cache_salt must be a string (byte 14)",
        ),
        (
            r#"{"stream_options":1}"#,
            "error unmarshaling request bodyMap: field stream_options must be an object (byte 18)",
        ),
        (
            " []",
            "error unmarshaling request bodyMap: field request body must be an object (byte 1)",
        ),
        (
            "7",
            "error unmarshaling request bodyMap: field request body must be an object (byte 0)",
        ),
    ] {
        let error = scan(BodyKind::ChatCompletions, body).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status()), (message, 400));
    }
}

#[test]
fn limits_are_named() {
    let limits = Limits {
        max_bytes: 20,
        max_depth: 3,
    };
    let mut scanner = RequestScanner::new(BodyKind::ChatCompletions, limits);
    scanner.push(br#"{"a":[[1]]"#).unwrap();
    let error = scanner.push(br#","b":"cccccccc"}"#).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.status()),
        ("request body is larger than the limit of 20 bytes", 413)
    );
    let error = RequestScanner::new(BodyKind::ChatCompletions, limits)
        .push(br#"{"a":[[[1]]]"#)
        .unwrap_err();
    assert_eq!(error, ScanError::TooDeep { limit: 3, offset: 7 });
    assert_eq!(error.status(), 400);
}

#[test]
fn an_anthropic_body_gives_system_tools_and_the_text_of_its_messages() {
    let body = r#"{"model":"claude","max_tokens":9,"stream":true,"tools":[{"name":"t"}],"messages":[
        {"role":"user","content":"hi"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"no"},
            {"type":"tool_use","id":"no","name":"find","input":{"depth":3,"deep":true,"in":["a"]}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"no","content":[{"type":"text","text":"found"}]},
            {"type":"image","source":{"type":"base64","media_type":"no","data":"no"}},
            {"type":"text","text":"!","cache_control":{"type":"ephemeral"}}]}],
        "system":[{"type":"text","text":"be good"}]}"#;
    let facts = scan(BodyKind::AnthropicMessages, body).unwrap();
    let wanted = r#"be good[{"name":"t"}]userhiassistanthmfind3trueauserfound!"#;
    assert_eq!(text(&facts), [wanted]);
    assert_eq!(facts.media_parts, 1);
    assert_eq!((facts.max_output_tokens, facts.stream), (Some(9), true));
    assert_eq!(facts.model.unwrap().value, "claude");
    let plain = r#"{"system":"s","messages":[{"role":"user","content":"c"}]}"#;
    assert_eq!(
        text(&scan(BodyKind::AnthropicMessages, plain).unwrap()),
        ["suserc"]
    );
}

#[test]
fn a_growing_anthropic_conversation_keeps_its_prefix() {
    let turn = |more: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"one"}}{more}]}}"#);
        text(&scan(BodyKind::AnthropicMessages, &body).unwrap()).remove(0)
    };
    let longer = turn(r#",{"role":"assistant","content":[{"type":"text","text":"two"}]}"#);
    assert!(longer.starts_with(&turn("")), "{longer}");
}

#[test]
fn an_anthropic_body_needs_messages() {
    for body in [
        "{}",
        r#"{"messages":[]}"#,
        r#"{"messages":"x"}"#,
        r#"{"messages":["x"]}"#,
        r#"{"messages":[{"role":"user"},1]}"#,
    ] {
        let error = scan(BodyKind::AnthropicMessages, body).unwrap_err();
        assert_eq!(
            error,
            ScanError::Invalid(BodyKind::AnthropicMessages.invalid_text()),
            "{body}"
        );
    }
}

#[test]
fn a_vllm_generate_body_is_token_ids() {
    let body = r#"{"model":"m","token_ids":[1,2,3],"sampling_params":{"max_tokens":7,"other":{"max_tokens":1}},
        "features":{"mm_placeholders":{"image":[{"offset":1,"length":2}]},"mm_hashes":{"image":["a","b"],"audio":["c"]}},
        "cache_salt":"s","stream":true}"#;
    let facts = scan(BodyKind::VllmGenerate, body).unwrap();
    assert_eq!(text(&facts), ["[1, 2, 3]"]);
    assert_eq!((facts.max_output_tokens, facts.media_parts), (Some(7), 3));
    assert_eq!(facts.cache_salt.as_deref(), Some("s"));
    for body in [
        r#"{"token_ids":[]}"#,
        r#"{"token_ids":"x"}"#,
        r#"{"token_ids":[-1]}"#,
        "{}",
    ] {
        assert!(scan(BodyKind::VllmGenerate, body).is_err(), "{body}");
    }
}

#[test]
fn an_sglang_body_has_its_own_names_and_no_model() {
    let body = r#"{"input_ids":[[1,2],[3]],"sampling_params":{"max_new_tokens":4},"extra_key":"k","cache_salt":"no"}"#;
    let facts = scan(BodyKind::SglangGenerate, body).unwrap();
    assert_eq!(text(&facts), ["[1, 2]", "[3]"]);
    assert_eq!(facts.max_output_tokens, Some(4));
    assert_eq!(facts.cache_salt.as_deref(), Some("k"));
    assert!(!BodyKind::SglangGenerate.names_model());
    let error = scan(BodyKind::SglangGenerate, r#"{"text":"x"}"#).unwrap_err();
    assert!(error.to_string().contains("input_ids"), "{error}");
}

#[test]
fn media_of_chat_messages_are_told_apart_and_placed_in_the_text() {
    use crate::Modality;
    use xxhash_rust::xxh64::xxh64;
    let image = "data:image/gif;base64,R0lGODlhgAJoAQAA";
    let body = format!(
        r#"{{"messages":[
        {{"role":"system","content":"be\u0020brief"}},
        {{"content":[{{"type":"text","text":"see"}},{{"type":"image_url","image_url":{{"detail":"low","url":"{image}"}}}},
            {{"video_url":"http:\/\/v","type":"video_url"}},{{"type":"text","text":"and hear"}},
            {{"type":"input_audio","input_audio":{{"format":"wav","data":"AAAA"}}}},{{"type":"file","file":{{"url":"no"}}}}],
            "role":"user"}}],
        "tools":[1]}}"#
    );
    let facts = chat(&body);
    assert_eq!(text(&facts), ["[1]systembe briefuserseeand hear"]);
    assert_eq!(facts.media_parts, 4);
    let found: Vec<_> = facts
        .media
        .iter()
        .map(|part| (part.modality, part.at, part.hash))
        .collect();
    let hash = |content: &str| xxh64(content.as_bytes(), 0);
    assert_eq!(
        found,
        [
            (Modality::Image, 24, hash(image)),
            (Modality::Video, 24, hash("http://v")),
            (Modality::Audio, 32, hash("AAAAwav")),
        ]
    );
    assert_eq!(facts.media[0].size, Some((640, 360)));
    assert_eq!((facts.media[0].bytes, facts.media[2].bytes), (image.len(), 4));
}

#[test]
fn a_content_that_is_replaced_takes_its_media_along() {
    let part = r#"{"type":"image_url","image_url":{"url":"a"}}"#;
    let facts = chat(&format!(
        r#"{{"messages":[{{"role":"user","content":[{part},{part}],"content":[{part}]}},{{"role":"user","content":[{part}],"content":"x"}}]}}"#
    ));
    assert_eq!((facts.media.len(), facts.media_parts), (1, 1));
    let text_block = chat(
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"t","image_url":{"url":"a"}}]}]}"#,
    );
    assert!(text_block.media.is_empty());
}
