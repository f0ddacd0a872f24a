//! The checks of the fuzz target `ext_proc`: its corpus replayed, and streams put together from it.

use std::path::Path;

use proptest::prelude::*;

use crate::checks;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ext_proc");
    let inputs: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .expect("a corpus")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("an input"))
        .collect();
    assert!(inputs.len() >= 8, "the corpus in {} is gone", folder.display());
    inputs
}

/// The whole frames of the corpus.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for input in corpus() {
        let mut rest = &input[2..];
        while let Some(head) = rest.first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some((frame, tail)) = rest.split_at_checked(5 + length) else {
                break;
            };
            frames.push(frame.to_vec());
            rest = tail;
        }
    }
    frames
}

#[test]
fn ext_proc_corpus_passes() {
    let mut seen = 0;
    for mut data in corpus() {
        // Somebody who asks for every answer, and for none.
        for most in [data[1], u8::MAX, 0] {
            data[1] = most;
            checks::ext_proc(&data);
        }
        data[1] = u8::MAX;
        seen += checks::answers(&data);
        (0..data.len())
            .step_by(7)
            .for_each(|length| checks::ext_proc(&data[..length]));
    }
    assert!(
        seen >= 30,
        "only {seen} answers: the corpus drives no requests any more"
    );
}

proptest! {
    #[test]
    fn frames_in_any_order_with_a_byte_changed_leave_nothing_behind(
        frames in prop::collection::vec(prop::sample::select(frames()), 0..10),
        flags in 0_u8..8,
        most: u8,
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut data = [&[flags, most][..], &frames.concat()].concat();
        if let Some((at, byte)) = change {
            let at = at.index(data.len());
            data[at] = byte;
        }
        checks::ext_proc(&data);
    }
}
