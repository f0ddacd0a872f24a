//! The index by hand-made prompts and against the obvious model.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn slot(index: u32, generation: u32) -> SlotId {
    SlotId { index, generation }
}

fn blocks(index: &PrefixIndex, of: SlotId, hashes: &[u64]) -> u32 {
    let mut matches = Matches::default();
    index.lookup(hashes, &mut matches);
    matches.blocks(of)
}

#[test]
fn a_chain_matches_up_to_the_first_unknown_block() {
    let index = PrefixIndex::default();
    index.insert(slot(0, 0), &[1, 2, 3], 100);
    index.insert(slot(1, 0), &[1], 100);
    let mut matches = Matches::default();
    index.lookup(&[1, 2, 9, 3], &mut matches);
    assert_eq!((matches.blocks(slot(0, 0)), matches.blocks(slot(1, 0))), (2, 1));
    matches.clear();
    assert_eq!((matches.blocks(slot(0, 0)), matches.is_empty()), (0, true));
}

#[test]
fn a_reused_slot_index_does_not_inherit() {
    let index = PrefixIndex::default();
    index.insert(slot(0, 0), &[1, 2], 100);
    assert_eq!(blocks(&index, slot(0, 1), &[1, 2]), 0);
    index.insert(slot(0, 1), &[7], 100);
    assert_eq!(blocks(&index, slot(0, 1), &[1, 2]), 0);
    assert_eq!(blocks(&index, slot(0, 1), &[7]), 1);
    assert_eq!(index.len(), 1);
    index.insert(slot(0, 0), &[1, 2], 100);
    assert_eq!(
        blocks(&index, slot(0, 1), &[7]),
        1,
        "an earlier owner takes nothing away"
    );
    assert_eq!(index.len(), 1);
}

#[test]
fn the_least_recently_used_block_goes_first() {
    let index = PrefixIndex::default();
    index.insert(slot(0, 0), &[1, 2, 3], 3);
    index.insert(slot(0, 0), &[1, 4], 3);
    assert_eq!(blocks(&index, slot(0, 0), &[2]), 0);
    for kept in [1, 3, 4] {
        assert_eq!(blocks(&index, slot(0, 0), &[kept]), 1, "block {kept}");
    }
}

#[test]
fn gone_endpoints_leave_nothing_behind() {
    let index = PrefixIndex::default();
    let many: Vec<u64> = (0..1000).collect();
    index.insert(slot(0, 0), &many, 5000);
    index.insert(slot(1, 0), &many[..10], 5000);
    index.retain(&[slot(1, 0)]);
    assert_eq!(index.len(), 10);
    assert_eq!(blocks(&index, slot(1, 0), &many), 10);
    index.retain(&[]);
    assert!(index.is_empty());
    assert_eq!(index.lock().blocks.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, Vec<u64>),
    Retain(Vec<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..4, proptest::collection::vec(0_u64..40, 0..12)).prop_map(|(slot, hashes)| Step::Insert(slot, hashes)),
        1 => proptest::collection::vec(0_u32..4, 0..4).prop_map(Step::Retain),
    ]
}

proptest! {
    /// Equals one list per endpoint that is searched in full.
    #[test]
    fn equals_the_obvious_model(steps in proptest::collection::vec(step(), 1..40), capacity in 1_usize..20) {
        let index = PrefixIndex::default();
        let mut model: BTreeMap<u32, VecDeque<u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(of, hashes) => {
                    index.insert(slot(of, 0), &hashes, capacity);
                    let list = model.entry(of).or_default();
                    for hash in hashes {
                        list.retain(|known| *known != hash);
                        list.push_back(hash);
                        while list.len() > capacity {
                            list.pop_front();
                        }
                    }
                }
                Step::Retain(mut live) => {
                    live.sort_unstable();
                    live.dedup();
                    model.retain(|of, _| live.contains(of));
                    let live: Vec<SlotId> = live.into_iter().map(|of| slot(of, 0)).collect();
                    index.retain(&live);
                }
            }
            let expected: usize = model.values().map(VecDeque::len).sum();
            prop_assert_eq!(index.len(), expected);
            for of in 0..4 {
                for hash in 0..40 {
                    let held = model.get(&of).is_some_and(|list| list.contains(&hash));
                    prop_assert_eq!(blocks(&index, slot(of, 0), &[hash]), u32::from(held));
                }
            }
        }
    }
}
