//! Media among the tokens of a prompt, and how many tokens they are worth.

use llmd_epp_api::{MediaPart, Modality};
use serde_json::{Value, json};

use super::*;
use crate::plugins::testing::{Pool, build, build_error, produced, request};

fn medium(modality: Modality, at: usize) -> MediaPart {
    MediaPart {
        modality,
        at,
        hash: 0x0123_4567_89ab_cdef,
        bytes: 9,
        size: None,
    }
}

fn tokenized(
    parameters: Value,
    text: &str,
    media: Vec<MediaPart>,
    headers: &[(&str, &str)],
) -> TokenizedPrompt {
    let mut pool = Pool::of(1);
    pool.request = request(text);
    pool.request.facts.media = media;
    for (name, value) in headers {
        pool.request.headers.push(name, value.as_bytes());
    }
    let of = (TOKENIZED_PROMPT, TYPE);
    produced::<TokenizedPrompt, _>(&PLUGIN, parameters, of, &pool, |made| {
        made.cloned().unwrap_or_default()
    })
}

fn length(parameters: Value, medium: MediaPart, headers: &[(&str, &str)]) -> u64 {
    let made = tokenized(parameters, "", vec![medium], headers);
    made.prompts[0].features[0].length
}

#[test]
fn a_request_of_which_the_body_says_it_all_gets_nothing() {
    assert!(tokenized(json!({}), "userhi", Vec::new(), &[]).prompts.is_empty());
}

#[test]
fn each_medium_begins_at_a_whole_token_and_repeats_the_end_of_its_hash() {
    let static_image = json!({"estimate": {"image": {"mode": "static", "static": {"staticToken": 2}}}});
    let media = vec![medium(Modality::Image, 6), medium(Modality::Audio, 8)];
    let made = tokenized(static_image, "userhi, there", media, &[]);
    let [prompt] = &made.prompts[..] else {
        panic!("one prompt")
    };
    // 9 bytes of audio are 3 tokens.
    let token = b"\xef\xcd\xab\x89";
    let image = [token.as_slice(); 2].concat();
    let audio = [token.as_slice(); 3].concat();
    let bytes = [b"userhi\0\0".as_slice(), &image, b", \0\0", &audio, b"there"].concat();
    assert_eq!(prompt.input, PromptInput::Text(bytes));
    let features: Vec<_> = prompt.features.iter().collect();
    assert_eq!(
        (&*features[0].modality, features[0].offset, features[0].length),
        ("image", 2, 2)
    );
    assert_eq!(
        (&*features[1].modality, features[1].offset, features[1].length),
        ("audio", 5, 3)
    );
    assert_eq!(&*features[1].hash, "123456789abcdef");
}

#[test]
fn images_count_by_their_area() {
    let sized = |size| MediaPart {
        size,
        ..medium(Modality::Image, 0)
    };
    // 640 · 360 / 1024.
    assert_eq!(length(json!({}), sized(None), &[]), 225);
    assert_eq!(length(json!({}), sized(Some((1280, 720))), &[]), 900);
    assert_eq!(length(json!({}), sized(Some((3, 3))), &[]), 1);
    let guide = json!({"modelName": "m", "estimate": {"image": {"mode": "dynamic",
        "defaultResolution": {"width": 1280, "height": 720}, "dynamic": {"factor": 512}}}});
    assert_eq!(length(guide, sized(None), &[]), 1800);
}

#[test]
fn videos_count_by_their_frames() {
    let of = |video: Value, headers: &[(&str, &str)]| {
        length(
            json!({"estimate": {"video": video}}),
            medium(Modality::Video, 0),
            headers,
        )
    };
    // 10 s · 2 frames/s · 225.
    assert_eq!(of(json!({}), &[]), 4500);
    let named = [
        ("x-llm-d-video-duration-seconds", "2.6"),
        ("x-llm-d-video-resolution", "1024x2"),
    ];
    assert_eq!(of(json!({}), &named), 5 * 2);
    assert_eq!(of(json!({"maxVideoTokens": 100}), &[]), 100);
    assert_eq!(
        of(json!({"frames": {"sampled": {"temporalPatchSize": 3}}}), &[]),
        6 * 225
    );
    assert_eq!(of(json!({"frames": {"minFrames": 30}}), &[]), 30 * 225);
    assert_eq!(of(json!({"frames": {"maxFrames": 4}}), &[]), 4 * 225);
    let per_frame = json!({"mode": "static", "static": {"numTokensPerFrame": 7}});
    let strided =
        json!({"tokensPerFrame": per_frame, "frames": {"mode": "strided", "strided": {"frameStride": 5}}});
    // 10 s · 24 frames/s over 5, and 10 s · 30 frames/s over 5.
    assert_eq!(of(strided.clone(), &[]), 48 * 7);
    assert_eq!(of(strided, &[("x-llm-d-video-fps", "30")]), 60 * 7);
    let absurd = [
        ("x-llm-d-video-duration-seconds", "1e300"),
        ("x-llm-d-video-resolution", "99999x99999"),
    ];
    assert_eq!(
        of(json!({}), &absurd),
        1 << 20,
        "a client cannot make us write more"
    );
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (parameters, field) in [
        (json!({"vllm": {"url": "http://x"}}), "modelName"),
        (
            json!({"modelName": "m", "vllm": {"url": "https://x"}}),
            "vllm.url",
        ),
        (json!({"modelName": "m", "vllm": {"url": "http://"}}), "vllm.url"),
        (
            json!({"modelName": "m", "vllm": {"timeout": "0s"}}),
            "vllm.timeout",
        ),
        (json!({"modelName": "m", "vllm": {"retries": 1}}), "vllm.retries"),
        (json!({"modelName": "m", "vllm": {}, "estimate": {}}), "vllm"),
        (json!({"udsTokenizerConfig": {}}), "udsTokenizerConfig"),
        (
            json!({"estimate": {"image": {"mode": "fixed"}}}),
            "estimate.image.mode",
        ),
        (
            json!({"estimate": {"image": {"dynamic": {"factor": 0}}}}),
            "estimate.image.dynamic.factor",
        ),
        (
            json!({"estimate": {"image": {"defaultResolution": {"width": 0, "height": 1}}}}),
            "estimate.image.defaultResolution.width",
        ),
        (
            json!({"estimate": {"video": {"defaultDuration": 0}}}),
            "estimate.video.defaultDuration",
        ),
        (
            json!({"estimate": {"video": {"frames": {"strided": {"frameStride": 0}}}}}),
            "estimate.video.frames.strided.frameStride",
        ),
        (
            json!({"estimate": {"video": {"frames": {"minFrames": 3, "maxFrames": 2}}}}),
            "estimate.video.frames.maxFrames",
        ),
    ] {
        let error = build_error(&PLUGIN, parameters);
        assert!(error.contains(field), "{field}: {error}");
    }
    assert!(build(&TOKENIZER, json!({})).producer.is_some());
}

#[test]
fn a_model_asks_for_the_render_backend_whose_answer_comes_with_the_request() {
    let backend = build(&PLUGIN, json!({"modelName": "m"})).render.unwrap();
    assert_eq!((&*backend.url, &*backend.model), ("http://localhost:8000", "m"));
    assert_eq!(
        (backend.timeout.as_secs(), backend.media_timeout.as_secs()),
        (5, 30)
    );
    assert!(
        build(&PLUGIN, json!({"modelName": "m", "estimate": {}}))
            .render
            .is_none()
    );

    let parameters = json!({"modelName": "m", "vllm": {"url": "http://render:8000/", "timeout": "100ms"}});
    assert_eq!(
        &*build(&PLUGIN, parameters.clone()).render.unwrap().url,
        "http://render:8000"
    );
    let mut pool = Pool::of(1);
    pool.request.facts.media = vec![medium(Modality::Image, 0)];
    let prompts = |pool: &Pool| {
        let of = (TOKENIZED_PROMPT, TYPE);
        produced::<TokenizedPrompt, _>(&PLUGIN, parameters.clone(), of, pool, |made| {
            made.map(|made| made.prompts.clone())
        })
    };
    assert_eq!(prompts(&pool), None, "no answer in time");
    let answer = TokenizedInput {
        input: PromptInput::Tokens(vec![1, 2, 3]),
        features: Vec::new(),
    };
    pool.request.tokens = Some(TokenizedPrompt {
        prompts: [answer.clone()].into(),
    });
    assert_eq!(prompts(&pool).as_deref(), Some(&[answer][..]));
}
