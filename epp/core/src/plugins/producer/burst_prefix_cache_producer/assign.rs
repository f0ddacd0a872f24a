//! Which replica each request of a batch goes to, so that a shared prefix is computed once.
//!
//! Requests with the same blocks are a group. Groups of several are placed first, longer prefixes before shorter ones;
//! then, where overlaps count, single requests that share their first blocks with another one. A unit prefers the
//! replica that holds most of its prefix while that one has less than its fair share, else the least loaded one.

use std::collections::HashMap;

/// One request.
#[derive(Debug)]
pub(super) struct Entry {
    /// Chained hashes of its blocks, prompt after prompt.
    pub(super) hashes: Box<[u64]>,
    /// End of each prompt in `hashes`.
    pub(super) ends: Box<[usize]>,
    /// Hashes of images, videos and audio: the same text with another picture is another prompt.
    pub(super) media: Box<[u64]>,
    /// What it adds to a replica's load.
    pub(super) weight: u64,
}

/// How far requests may be put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Most requests of one group per replica.
    pub(super) max_per_replica: usize,
    /// First blocks that two requests share to be put together; 0 counts only equal ones.
    pub(super) min_colocate_blocks: usize,
}

/// The replica of each entry, by index; `busy` holds the requests that each replica has running. `None` for a request
/// that shares its prompt with nobody.
pub(super) fn assign(entries: &[Entry], busy: &[u32], rules: Rules) -> Vec<Option<usize>> {
    let mut assigned = vec![None; entries.len()];
    let units = units(entries, rules.min_colocate_blocks);
    if busy.is_empty() || units.is_empty() {
        return assigned;
    }
    let members = units.iter().flatten();
    let total: u64 = members.map(|entry| entries[*entry].weight).sum();
    let mut layout = Layout {
        rules,
        busy,
        fair_share: total.div_ceil(busy.len() as u64),
        load: vec![0; busy.len()],
        holders: HashMap::new(),
    };
    for unit in &units {
        layout.place(unit, entries, &mut assigned);
    }
    assigned
}

/// What makes requests equal.
#[derive(PartialEq, Eq, Hash)]
struct Prompt<'a> {
    hashes: &'a [u64],
    ends: &'a [usize],
    media: &'a [u64],
}

/// What is placed, in this order: members by index.
fn units(entries: &[Entry], min_colocate_blocks: usize) -> Vec<Vec<usize>> {
    let mut by_prompt: HashMap<Prompt<'_>, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if entry.hashes.is_empty() {
            continue;
        }
        let key = Prompt {
            hashes: &entry.hashes,
            ends: &entry.ends,
            media: &entry.media,
        };
        let group = *by_prompt.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(index);
    }
    let first_blocks = |group: &[usize]| {
        let hashes = &entries[group[0]].hashes;
        hashes
            .get(..min_colocate_blocks)
            .filter(|_| min_colocate_blocks > 0)
    };
    let mut sharing: HashMap<&[u64], usize> = HashMap::new();
    for group in &groups {
        if let Some(first) = first_blocks(group) {
            *sharing.entry(first).or_default() += group.len();
        }
    }
    let is_shared = |group: &[usize]| first_blocks(group).is_some_and(|first| sharing[first] > 1);
    groups.retain(|group| group.len() > 1 || is_shared(group));
    // Stable: equal ones stay in the order of their arrival.
    groups.sort_by_key(|group| {
        let blocks = entries[group[0]].hashes.len();
        (group.len() == 1, std::cmp::Reverse(blocks))
    });
    groups
}

/// What is placed so far.
struct Layout<'a> {
    rules: Rules,
    busy: &'a [u32],
    fair_share: u64,
    load: Vec<u64>,
    /// Replicas that hold a block.
    holders: HashMap<u64, Vec<usize>>,
}

impl Layout<'_> {
    fn place(&mut self, unit: &[usize], entries: &[Entry], assigned: &mut [Option<usize>]) {
        let hashes = &entries[unit[0]].hashes;
        let mut nearest = self.nearest(hashes);
        let mut placed = vec![0; self.busy.len()];
        let mut left = unit;
        while !left.is_empty() {
            // Only the first replica is chosen by what it holds.
            let Some(replica) = nearest.take().or_else(|| self.least_loaded(&placed)) else {
                return;
            };
            // More than all replicas may take: one by one, evenly.
            let room = self.rules.max_per_replica.saturating_sub(placed[replica]).max(1);
            let (now, later) = left.split_at(room.min(left.len()));
            for entry in now {
                assigned[*entry] = Some(replica);
                self.load[replica] += entries[*entry].weight;
            }
            placed[replica] += now.len();
            left = later;
        }
        for (replica, _) in placed.iter().enumerate().filter(|(_, placed)| **placed > 0) {
            for hash in hashes {
                let holders = self.holders.entry(*hash).or_default();
                if !holders.contains(&replica) {
                    holders.push(replica);
                }
            }
        }
    }

    /// The replica that holds most of the prefix, of those below their fair share.
    fn nearest(&self, hashes: &[u64]) -> Option<usize> {
        if self.rules.min_colocate_blocks == 0 {
            return None;
        }
        let mut held = vec![0_usize; self.busy.len()];
        for hash in hashes {
            let Some(holders) = self.holders.get(hash) else {
                break;
            };
            for replica in holders {
                held[*replica] += 1;
            }
        }
        let near = (0..self.busy.len()).filter(|replica| {
            held[*replica] >= self.rules.min_colocate_blocks && self.load[*replica] < self.fair_share
        });
        near.min_by_key(|replica| (std::cmp::Reverse(held[*replica]), self.order(*replica)))
    }

    /// The least loaded replica that may take more of a group, or of all when none may.
    fn least_loaded(&self, placed: &[usize]) -> Option<usize> {
        let is_full = |replica: &usize| placed[*replica] >= self.rules.max_per_replica;
        let all = 0..self.busy.len();
        all.min_by_key(|replica| (is_full(replica), self.order(*replica)))
    }

    fn order(&self, replica: usize) -> (u64, u32, usize) {
        (self.load[replica], self.busy[replica], replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLIMITED: Rules = Rules {
        max_per_replica: usize::MAX,
        min_colocate_blocks: 0,
    };

    fn entries(prompts: &[&[u64]]) -> Vec<Entry> {
        let entry = |hashes: &&[u64]| Entry {
            hashes: (*hashes).into(),
            ends: [hashes.len()].into(),
            media: [].into(),
            weight: 1,
        };
        prompts.iter().map(entry).collect()
    }

    #[test]
    fn equal_prompts_go_to_one_replica_and_others_nowhere() {
        let batch = entries(&[&[1, 2], &[9], &[1, 2], &[], &[], &[1, 2, 3], &[1, 2]]);
        let (here, none) = (Some(0), None);
        assert_eq!(
            assign(&batch, &[0, 0], UNLIMITED),
            [here, none, here, none, none, none, here]
        );
    }

    #[test]
    fn another_picture_is_another_prompt() {
        let mut batch = entries(&[&[1], &[1], &[1], &[1]]);
        for entry in &mut batch[2..] {
            entry.media = [7].into();
        }
        assert_eq!(assign(&batch, &[0, 0], UNLIMITED), [0, 0, 1, 1].map(Some));
    }

    #[test]
    fn groups_are_spread_and_the_longer_prefix_is_first() {
        let batch = entries(&[&[1], &[1], &[2, 3], &[2, 3], &[4], &[4]]);
        // The long one takes the idle replica; the next ones the least loaded, then the idler.
        assert_eq!(
            assign(&batch, &[5, 0, 7], UNLIMITED),
            [0, 0, 1, 1, 2, 2].map(Some)
        );
    }

    #[test]
    fn a_group_spills_over_at_its_limit_and_evenly_beyond_it() {
        let rules = Rules {
            max_per_replica: 2,
            ..UNLIMITED
        };
        let five = entries(&[&[1][..]; 5]);
        assert_eq!(assign(&five, &[0, 0, 0], rules), [0, 0, 1, 1, 2].map(Some));
        let six = entries(&[&[1][..]; 6]);
        assert_eq!(assign(&six, &[0, 0], rules), [0, 0, 1, 1, 0, 1].map(Some));
    }

    #[test]
    fn an_overlap_of_enough_blocks_joins_while_the_share_is_fair() {
        let rules = Rules {
            min_colocate_blocks: 2,
            ..UNLIMITED
        };
        let batch = entries(&[&[1, 2, 3], &[1, 2, 3], &[1, 2, 4], &[1, 5], &[8, 9], &[8, 9, 7]]);
        // Fair share: 5 placed over 2 replicas, 3 each. The pair and its neighbour are together; the other
        // overlap goes where there is room; one block is not enough.
        assert_eq!(
            assign(&batch, &[0, 0], rules),
            [Some(0), Some(0), Some(0), None, Some(1), Some(1)]
        );
        let full = entries(&[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[1, 2, 4]]);
        assert_eq!(
            assign(&full, &[0, 0], rules),
            [Some(0), Some(0), Some(0), Some(1)],
            "the holder has its share"
        );
    }

    #[test]
    fn load_is_what_the_weights_say() {
        let mut batch = entries(&[&[1, 2], &[1, 2], &[3], &[3], &[4], &[4]]);
        for entry in &mut batch[..2] {
            entry.weight = 100;
        }
        assert_eq!(assign(&batch, &[0, 0], UNLIMITED), [0, 0, 1, 1, 1, 1].map(Some));
        assert_eq!(assign(&batch, &[], UNLIMITED), [None; 6]);
    }
}
