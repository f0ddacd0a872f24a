//! Hashing and looking up one long prompt; budget: 220 KB hash in well under 60 µs.

use divan::Bencher;
use llmd_epp_api::{PromptInput, SlotId};
use llmd_kv::{Matches, PrefixIndex, hash_prompt};

fn main() {
    divan::main();
}

fn prompt() -> PromptInput {
    PromptInput::Text((0..220_000_u32).map(|i| (i * 31 % 251) as u8).collect())
}

fn hashes() -> Vec<u64> {
    let mut hashes = Vec::new();
    hash_prompt(1, &prompt(), 64, usize::MAX, &mut hashes);
    hashes
}

#[divan::bench]
fn hash_220_kb(bencher: Bencher<'_, '_>) {
    let prompt = prompt();
    let mut hashes = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        hashes.clear();
        hash_prompt(1, divan::black_box(&prompt), 64, usize::MAX, &mut hashes)
    });
}

#[divan::bench]
fn lookup_860_blocks_on_8_endpoints(bencher: Bencher<'_, '_>) {
    let hashes = hashes();
    let index = PrefixIndex::default();
    for slot in 0..8 {
        let slot = SlotId {
            index: slot,
            generation: 0,
        };
        index.insert(slot, &hashes, 31_250);
    }
    let mut matches = Matches::default();
    bencher.bench_local(|| {
        matches.clear();
        index.lookup(divan::black_box(&hashes), &mut matches);
    });
}

#[divan::bench]
fn refresh_860_blocks(bencher: Bencher<'_, '_>) {
    let hashes = hashes();
    let index = PrefixIndex::default();
    let slot = SlotId {
        index: 0,
        generation: 0,
    };
    bencher.bench_local(|| index.insert(slot, divan::black_box(&hashes), 31_250));
}

/// Prompts in turn, so that none is in the processor's caches when it comes again.
#[divan::bench]
fn lookup_and_refresh_860_blocks_of_100_prompts_in_turn(bencher: Bencher<'_, '_>) {
    let prompts: Vec<Vec<u64>> = (0..100)
        .map(|root| {
            let mut hashes = Vec::new();
            hash_prompt(root, &prompt(), 64, usize::MAX, &mut hashes);
            hashes
        })
        .collect();
    let index = PrefixIndex::default();
    let mut turns = prompts.iter().zip(0_u32..).cycle();
    let mut matches = Matches::default();
    bencher.bench_local(|| {
        let (hashes, prompt) = turns.next().expect("endless");
        matches.clear();
        index.lookup(hashes, &mut matches);
        let slot = SlotId {
            index: prompt % 8,
            generation: 0,
        };
        index.insert(slot, hashes, 31_250);
    });
}
