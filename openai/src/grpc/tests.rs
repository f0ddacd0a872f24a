//! Frames, and the messages of vLLM's service.

use prost::Message;

use super::vllm::{Chunk, Complete, EmbedRequest, GenerateRequest, GenerateResponse, TokenizedInput};
use super::*;
use crate::PromptInput;

fn read(method: Method, body: &[u8]) -> Result<RequestFacts, ScanError> {
    request(Service::Vllm(method), body, Limits::default())
}

fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut all = vec![0];
    all.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    all.extend_from_slice(&bytes);
    all
}

#[test]
fn a_generate_request_is_read_by_its_field_numbers() {
    // 2: {2: packed [1, 300]}, 4: {8: 7}, 5: true, 7: {6: "h"}
    let raw = [
        0x12, 5, 0x12, 3, 1, 0xac, 0x02, 0x22, 2, 0x40, 7, 0x28, 1, 0x3a, 3, 0x32, 1, b'h',
    ];
    let mut body = vec![0, 0, 0, 0, raw.len() as u8];
    body.extend_from_slice(&raw);
    let facts = read(Method::Generate, &body).unwrap();
    assert_eq!(facts.prompts[0].input, PromptInput::Tokens(vec![1, 300]));
    assert_eq!(
        (facts.max_output_tokens, facts.stream, facts.media_parts),
        (Some(7), true, 1)
    );
    let text = GenerateRequest {
        text: Some("hi".to_owned()),
        ..GenerateRequest::default()
    };
    let facts = read(Method::Generate, &framed(&text)).unwrap();
    assert_eq!(facts.prompts[0].input, PromptInput::Text(b"hi".to_vec()));
}

#[test]
fn what_is_no_such_message_is_refused() {
    let whole = framed(&EmbedRequest {
        tokenized: Some(TokenizedInput { input_ids: vec![1] }),
    });
    assert!(read(Method::Embed, &whole).is_ok());
    let mut compressed = whole.clone();
    compressed[0] = 1;
    for wrong in [
        &b""[..],
        &whole[..whole.len() - 1],
        &compressed,
        &framed(&GenerateRequest::default()),
        b"\0\0\0\0\x01\xff",
    ] {
        assert!(read(Method::Generate, wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn counts_come_from_chunks_cut_anywhere() {
    let chunk = GenerateResponse {
        chunk: Some(Chunk {
            prompt: 5,
            completion: 1,
            cached: 4,
        }),
        complete: None,
    };
    let last = GenerateResponse {
        chunk: None,
        complete: Some(Complete {
            prompt: 5,
            completion: 3,
            cached: 4,
        }),
    };
    let mut long = vec![0];
    long.extend_from_slice(&(LONGEST_RESPONSE as u32 + 1).to_be_bytes());
    long.resize(HEAD + LONGEST_RESPONSE + 1, 7);
    let body = [framed(&chunk), long, framed(&last)].concat();
    for size in [1 << 14, 100_003, body.len()] {
        let (mut reader, mut usage, mut messages) = (
            ResponseMessages::new(Service::Vllm(Method::Generate)),
            Usage::default(),
            0,
        );
        for piece in body.chunks(size) {
            messages += reader.push(piece, &mut usage);
        }
        assert_eq!(
            (usage.prompt, usage.completion, usage.cached, usage.total),
            (5, 3, 4, 8)
        );
        assert_eq!(messages, 3, "pieces of {size}");
    }
}
