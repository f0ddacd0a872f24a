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
        // Parts of it are pages and files that broke off.
        (0..data.len())
            .step_by(1 + data.len() / 40)
            .for_each(|length| check(&data[..length]));
        seen += 1;
    }
    assert!(seen >= 8, "the corpus in {} is gone", folder.display());
}

#[test]
fn config_corpus_passes() {
    replay("config", checks::config);
}

#[test]
fn metrics_page_corpus_passes() {
    replay("metrics_page", checks::metrics_page);
}
