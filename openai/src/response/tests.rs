use super::*;

fn read(mode: ResponseMode, chunks: &[&[u8]]) -> (ResponseReader, Vec<u8>) {
    read_as(BodyKind::ChatCompletions, mode, chunks)
}

fn read_as(kind: BodyKind, mode: ResponseMode, chunks: &[&[u8]]) -> (ResponseReader, Vec<u8>) {
    let mut reader = ResponseReader::new(mode, kind, None);
    let mut out = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk), false, &mut out);
    }
    reader.push(Bytes::new(), true, &mut out);
    (reader, out.concat())
}

fn usage(prompt: u64, completion: u64, total: u64, cached: u64) -> Usage {
    Usage {
        prompt,
        completion,
        total,
        cached,
    }
}

const STREAM: &[u8] = b"data: {\"model\":\"m\",\"usage\":null}\r\n\r\ndata:{\"choices\":[]}\n\n: ping\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":\"3\",\"total_tokens\":10,\
    \"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\r\n\r\n";

#[test]
fn a_stream_cut_anywhere_gives_the_same_usage() {
    for cut in 0..STREAM.len() {
        let (reader, out) = read(ResponseMode::Sse, &[&STREAM[..cut], &STREAM[cut..]]);
        assert_eq!(out, STREAM);
        assert_eq!(
            (reader.usage(), reader.events(), reader.is_done()),
            (usage(7, 3, 10, 4), 3, true),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_document_cut_anywhere_gives_the_same_usage() {
    let body: &[u8] =
        br#"{"choices":[{"usage":{"prompt_tokens":99}}],"usage":{"input_tokens":5,"output_tokens":6,
        "input_tokens_details":{"cached_tokens":2}},"response":{"usage":{"input_tokens":1}}}"#;
    for cut in 0..body.len() {
        let (reader, out) = read(ResponseMode::Json, &[&body[..cut], &body[cut..]]);
        assert_eq!(out, body);
        assert_eq!(reader.usage(), usage(5, 6, 11, 2), "cut at {cut}");
    }
}

#[test]
fn responses_api_reports_usage_in_the_completed_event() {
    let event = |kind: &str| {
        format!(
            "event: x\ndata: {{\"type\":\"{kind}\",\"response\":{{\"output\":[{{\"usage\":1}}],\"usage\":{{\"input_tokens\":3,\"output_tokens\":4,\"total_tokens\":7}}}}}}\n\n"
        )
    };
    let (reader, _) = read(ResponseMode::Sse, &[event("response.completed").as_bytes()]);
    assert_eq!(reader.usage(), usage(3, 4, 7, 0));
    let (reader, _) = read(ResponseMode::Sse, &[event("response.created").as_bytes()]);
    assert_eq!(reader.usage(), Usage::default());
}

#[test]
fn later_reports_win_where_they_say_something() {
    let mut merged = Usage::default();
    for (report, wanted) in [
        (
            r#"{"prompt_tokens":10,"completion_tokens":0,"total_tokens":10}"#,
            usage(10, 0, 10, 0),
        ),
        (r#"{"completion_tokens":5,"total_tokens":5}"#, usage(10, 5, 15, 0)),
        (
            r#"{"prompt_tokens":"11","completion_tokens":6,"total_tokens":20}"#,
            usage(11, 6, 20, 0),
        ),
        (
            r#"{"prompt_tokens":-1,"completion_tokens":{},"prompt_tokens_details":null}"#,
            usage(11, 6, 17, 0),
        ),
        ("[1]", usage(11, 6, 17, 0)),
    ] {
        merged.merge_json(report.as_bytes());
        assert_eq!(merged, wanted, "{report}");
    }
}

#[test]
fn what_cannot_be_parsed_passes_through() {
    let (reader, out) = read(ResponseMode::Json, &[b"oops {", b"\"usage\":1"]);
    assert_eq!(
        (out.as_slice(), reader.usage()),
        (&b"oops {\"usage\":1"[..], Usage::default())
    );
    let stream = b"data: {\"usage\":{oops\n\ndata: {\"usage\":{\"prompt_tokens\":1}}\n\n";
    let (reader, out) = read(ResponseMode::Sse, &[stream]);
    assert_eq!((out.as_slice(), reader.usage().prompt), (&stream[..], 1));
}

#[test]
fn without_a_rename_chunks_are_the_same_memory() {
    let chunk = Bytes::from_static(STREAM);
    let mut out = Vec::new();
    ResponseReader::new(ResponseMode::Sse, BodyKind::ChatCompletions, None).push(
        chunk.clone(),
        false,
        &mut out,
    );
    assert_eq!((out.len(), out[0].as_ptr()), (1, chunk.as_ptr()));
}

#[test]
fn the_model_name_is_restored_beside_the_usage() {
    let mut reader = ResponseReader::new(
        ResponseMode::Sse,
        BodyKind::ChatCompletions,
        Rename::new("m", "mine"),
    );
    let mut out = Vec::new();
    reader.push(Bytes::from_static(&STREAM[..10]), false, &mut out);
    reader.push(Bytes::from_static(&STREAM[10..]), true, &mut out);
    assert_eq!(
        String::from_utf8(out.concat()).unwrap(),
        String::from_utf8_lossy(STREAM).replace("\"m\"", "\"mine\"")
    );
    assert_eq!(reader.usage().total, 10);
}

#[test]
fn anthropic_counts_come_in_two_events_or_one_document() {
    let stream =
        b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"usage\":\
        {\"input_tokens\":9,\"output_tokens\":1,\"cache_read_input_tokens\":4}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"x\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for cut in 0..stream.len() {
        let chunks = [&stream[..cut], &stream[cut..]];
        let (reader, out) = read_as(BodyKind::AnthropicMessages, ResponseMode::Sse, &chunks);
        assert_eq!(out, stream);
        assert_eq!(reader.usage(), usage(9, 7, 16, 4), "cut at {cut}");
    }
    let document =
        br#"{"type":"message","usage":{"input_tokens":3,"output_tokens":2,"cache_read_input_tokens":1}}"#;
    let (reader, _) = read_as(BodyKind::AnthropicMessages, ResponseMode::Json, &[document]);
    assert_eq!(reader.usage(), usage(3, 2, 5, 1));
}

#[test]
fn sglang_counts_are_in_the_chunk_with_the_finish_reason() {
    let stream = b"data: {\"text\":\"a\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"finish_reason\":null}}\n\n\
        data: {\"text\":\"ab\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"cached_tokens\":4,\
        \"finish_reason\":{\"type\":\"stop\"}}}\n\ndata: [DONE]\n\n";
    let (reader, _) = read_as(BodyKind::SglangGenerate, ResponseMode::Sse, &[stream]);
    assert_eq!(reader.usage(), usage(5, 2, 7, 4));
    let cut_off = &stream[..stream.len() / 2];
    let (reader, _) = read_as(BodyKind::SglangGenerate, ResponseMode::Sse, &[cut_off]);
    assert_eq!(reader.usage(), Usage::default(), "only the last one counts");
}
