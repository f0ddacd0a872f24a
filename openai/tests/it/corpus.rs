//! Every input in `fuzz/corpus` passes the checks of its fuzz target.

use std::path::Path;

use crate::checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        check(&data);
        // Each prefix is a client or engine that broke off.
        (0..data.len().min(400)).for_each(|length| check(&data[..length]));
        seen += 1;
    }
    assert!(seen >= 8, "the corpus in {} is gone", folder.display());
}

#[test]
fn request_corpus_passes() {
    replay("request", checks::request_input);
}

#[test]
fn response_corpus_passes() {
    replay("response", checks::response_input);
}

#[test]
fn sse_corpus_passes() {
    replay("sse", checks::streams::sse_input);
}

#[test]
fn grpc_corpus_passes() {
    replay("grpc", checks::streams::grpc_input);
}
