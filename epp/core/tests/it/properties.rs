//! The checks of the fuzz targets on damaged and put-together texts.

use proptest::prelude::*;

use crate::checks;

const CONFIG: &str = include_str!("../../fuzz/corpus/config/00");
const PAGE: &str = include_str!("../../testdata/sglang.prom");

/// The lines of a text, some of them moved, doubled or emptied, and one byte of it another.
fn shuffled(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    let moves = prop::collection::vec((0..count, 0..count, 0_u8..3), 0..4);
    let byte = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (moves, byte).prop_map(move |(moves, byte)| {
        let mut lines = lines.clone();
        for (from, to, what) in moves {
            let (from, to) = (from % lines.len(), to % lines.len());
            match what {
                0 => lines.swap(from, to),
                1 => lines.insert(to, lines[from]),
                _ => lines[from] = "",
            }
        }
        let mut bytes = lines.join("\n").into_bytes();
        if let Some((at, byte)) = byte {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn damaged_configurations_are_decoded_or_refused_with_a_reason(text in shuffled(CONFIG)) {
        checks::config(&text);
    }

    #[test]
    fn damaged_pages_are_read_the_same_whatever_was_read_before(page in shuffled(PAGE)) {
        checks::metrics_page(&page);
    }
}
