//! Compressed request bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("to memory");
    encoder.finish().expect("to memory")
}

fn sent(
    world: &World,
    encoding: &'static str,
    headers: &[(&'static str, &'static str)],
    body: &[u8],
) -> Result<Routed, Rejection> {
    let all = [&[CHAT, ("content-encoding", encoding)], headers].concat();
    let mut exchange = world.open(&all);
    for chunk in body.chunks(7) {
        exchange.on_request_chunk(chunk)?;
    }
    exchange.on_request_end(world.now, &world.snapshot, &Hints::default())
}

#[test]
fn a_compressed_body_is_read_and_passes_as_it_is() {
    let world = world(1);
    let routed = sent(&world, "gzip", &[], &gzip(BODY)).expect("routed");
    assert!(routed.decoded_body.is_none() && routed.model_splice.is_none());
    assert!(
        !routed
            .remove_headers
            .iter()
            .any(|name| **name == *"content-encoding")
    );
}

#[test]
fn a_new_model_name_goes_into_the_decoded_body() {
    let world = world(1);
    let rewrite = [("x-llm-d-model-name-rewrite", "target")];
    let routed = sent(&world, "gzip", &rewrite, &gzip(BODY)).expect("routed");
    assert_eq!(routed.decoded_body.as_deref(), Some(BODY));
    assert!(routed.model_splice.is_some());
    assert!(
        routed
            .remove_headers
            .iter()
            .any(|name| **name == *"content-encoding")
    );
}

#[test]
fn what_cannot_be_read_is_refused_by_its_kind() {
    let world = world(1);
    let refused = |encoding, body: &[u8]| sent(&world, encoding, &[], body).expect_err("refused");
    let unknown = refused("br", BODY);
    assert_eq!(unknown.code.http_status(), 415);
    assert!(unknown.message.contains("'br'"), "{unknown}");
    let corrupt = refused("gzip", BODY);
    assert_eq!(corrupt.code.http_status(), 400);
    let not_json = refused("zstd", &gzip(BODY));
    assert_eq!(not_json.code.http_status(), 400);
    let bomb = gzip(&vec![b' '; Limits::default().max_bytes + 1]);
    assert_eq!(refused("gzip", &bomb).code.http_status(), 413);
}
