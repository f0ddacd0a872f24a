//! The checks of the fuzz targets on generated bodies.

use bytes::Bytes;
use llmd_openai::{BodyKind, ResponseMode, Span, splice_model};
use proptest::prelude::*;

use crate::{
    checks::{self, KINDS},
    documents,
};

proptest! {
    #[test]
    fn bodies_read_the_same_in_any_chunks_and_as_serde_json_reads_them(body in documents::body(), seed: u8) {
        for kind in KINDS {
            checks::request(kind, body.as_bytes(), seed);
        }
    }

    #[test]
    fn damaged_bodies_are_refused_as_serde_json_refuses_them(
        body in documents::body(),
        at: prop::sample::Index,
        byte: u8,
        remove: bool,
        seed: u8,
    ) {
        let mut damaged = body.into_bytes();
        let at = at.index(damaged.len());
        if remove {
            damaged.remove(at);
        } else {
            damaged[at] = byte;
        }
        checks::request(BodyKind::ChatCompletions, &damaged, seed);
    }

    #[test]
    fn any_json_value_is_read_or_refused_without_a_panic(value in documents::value(), seed: u8) {
        checks::request(BodyKind::ChatCompletions, value.as_bytes(), seed);
        checks::response(ResponseMode::Json, value.as_bytes(), seed);
    }

    #[test]
    fn streams_read_the_same_in_any_chunks(events in prop::collection::vec(event(), 0..8), seed: u8) {
        checks::response(ResponseMode::Sse, events.concat().as_bytes(), seed);
    }

    #[test]
    fn payloads_are_those_of_the_lines_in_any_chunks(events in prop::collection::vec(event(), 0..8), seed: u8) {
        checks::streams::events(events.concat().as_bytes(), seed);
    }

    #[test]
    fn grpc_frames_read_the_same_in_any_chunks(frames in prop::collection::vec(frame(), 0..4), keep: prop::sample::Index, seed: u8) {
        let mut body = frames.concat();
        body.truncate(keep.index(body.len() + 1) * 2);
        for service in checks::streams::SERVICES {
            checks::streams::frames(service, &body, seed);
        }
    }

    #[test]
    fn a_splice_keeps_every_other_byte(body: Vec<u8>, start: u8, length: u8, seed: u8) {
        let chunks: Vec<Bytes> = checks::cut(&body, seed).into_iter().map(Bytes::copy_from_slice).collect();
        let start = usize::from(start).min(body.len().saturating_sub(1));
        let end = (start + usize::from(length)).min(body.len());
        let spliced = splice_model(&chunks, Span { start, end }, "x").concat();
        if body.is_empty() {
            prop_assert!(spliced.is_empty());
        } else {
            prop_assert_eq!(spliced, [&body[..start], b"\"x\"", &body[end..]].concat());
        }
    }
}

fn event() -> impl Strategy<Value = String> {
    let data = prop_oneof![
        documents::value(),
        Just(r#"{"model":"m","usage":{"prompt_tokens":3,"completion_tokens":"4"}}"#.to_owned()),
        Just(r#"{"model": "m","usage":null}"#.to_owned()),
        Just(
            r#"{"type":"response.completed","response":{"model":"m","usage":{"input_tokens":9}}}"#.to_owned()
        ),
        Just("[DONE]".to_owned()),
        Just("\"model\":\"\"model\": \"m\"".to_owned()),
    ];
    let start = prop::sample::select(vec!["data: ", "data:", ": ", "event: x\ndata: "]);
    let end = prop::sample::select(vec!["\n\n", "\r\n\r\n", "\n", ""]);
    (start, data, end).prop_map(|(start, data, end)| format!("{start}{data}{end}"))
}

/// Protobuf that nests like the messages do, in a frame whose flag and length may be wrong.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let field = || {
        prop_oneof![
            (1_u8..9, any::<u8>()).prop_map(|(tag, value)| vec![tag << 3, value & 0x7f]),
            (1_u8..9, prop::collection::vec(any::<u8>(), 0..20)).prop_map(nested),
            (1_u8..9, documents::body()).prop_map(|(tag, body)| {
                let mut body = body.into_bytes();
                body.truncate(120);
                nested((tag, body))
            }),
        ]
    };
    let inner = prop::collection::vec(field(), 0..4).prop_map(|fields| fields.concat());
    let message = prop_oneof![
        inner.clone(),
        (
            1_u8..9,
            inner.prop_filter("one byte tells its length", |inner| inner.len() < 128)
        )
            .prop_map(nested),
    ];
    let flag = prop::sample::select(vec![0, 0, 0, 1]);
    let off = prop::sample::select(vec![0, 0, 0, 1, 1 << 24]);
    (flag, message, off).prop_map(|(flag, message, off)| {
        let length = u32::try_from(message.len()).unwrap() + off;
        [&[flag][..], &length.to_be_bytes(), &message].concat()
    })
}

fn nested((tag, inner): (u8, Vec<u8>)) -> Vec<u8> {
    let length = u8::try_from(inner.len()).unwrap();
    [&[tag << 3 | 2, length][..], &inner].concat()
}

#[test]
fn big_integers_key_order_and_escapes_stay() {
    let body = r#"{"z":12345678901234567890123, "model" : "old","a":"\u00e9\/","messages":[{"role":"user"}],"f":1.0e+2}"#;
    let facts = checks::scan(BodyKind::ChatCompletions, &[body.as_bytes()]).unwrap();
    let spliced = splice_model(&[Bytes::from(body)], facts.model.unwrap().span.unwrap(), "new").concat();
    assert_eq!(
        String::from_utf8(spliced).unwrap(),
        body.replace("\"old\"", "\"new\"")
    );
}
