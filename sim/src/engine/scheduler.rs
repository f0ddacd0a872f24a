//! The scheduler: running requests first, then waiting ones in order, under a token budget per step.
//!
//! The rules are vLLM v1's: no prefill or decode phase, every request just catches up with its tokens;
//! blocks are published to the prefix cache when they are scheduled; the last token of a prompt is
//! always computed; a waiting request enters only if its whole sequence fits the free blocks; when a
//! running request finds no block, the youngest running one is preempted and computed again later.

mod observe;
mod transfers;

use std::collections::VecDeque;
use std::time::Duration;

use super::blocks::BlockPool;
use super::event::{Counters, Event};
use super::held::Held;
use super::sequence::{EngineRequest, FinishReason, RequestId, Sequence};
use super::timing::{StepLoad, Timing};

/// Sizes of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// KV blocks, the reserved one included (`num_gpu_blocks`).
    pub blocks: u32,
    /// Tokens per block.
    pub block_size: usize,
    /// Most requests in a step.
    pub max_sequences: usize,
    /// Most tokens in a step.
    pub max_batched_tokens: usize,
    /// Whether blocks are shared by content.
    pub prefix_caching: bool,
    /// Most adapters in a step.
    pub max_adapters: usize,
}

/// Why the engine does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It could never run.
    #[error("the sequence of {tokens} tokens needs more than the {capacity} tokens that all KV blocks hold")]
    TooLong {
        /// Prompt and output tokens.
        tokens: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// Nothing to compute, or nothing to generate.
    #[error("prompt and output need at least one token each")]
    Empty,
}

struct Step {
    end: Duration,
    duration: Duration,
    tokens: u64,
}

/// One engine. `submit`, `abort` and `poll` change it; [`Engine::next`] says when to poll.
pub struct Engine {
    config: EngineConfig,
    timing: Timing,
    pool: BlockPool,
    /// In the front end, with the time at which the scheduler sees them.
    arrivals: VecDeque<(Duration, Sequence)>,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    held: Held,
    step: Option<Step>,
    /// Time up to which everything is done.
    clock: Duration,
    front_end_free: Duration,
    next_id: RequestId,
    counters: Counters,
}

impl Engine {
    /// An idle engine.
    pub fn new(config: EngineConfig, timing: Timing) -> Self {
        Self {
            config,
            timing,
            pool: BlockPool::new(config.blocks),
            arrivals: VecDeque::new(),
            waiting: VecDeque::new(),
            running: Vec::with_capacity(config.max_sequences),
            held: Held::default(),
            step: None,
            clock: Duration::ZERO,
            front_end_free: Duration::ZERO,
            next_id: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a request that arrives at `now`.
    pub fn submit(&mut self, now: Duration, request: EngineRequest) -> Result<RequestId, SubmitError> {
        if request.prompt.is_empty() || request.output.is_empty() {
            return Err(SubmitError::Empty);
        }
        let tokens = request.prompt.len() + request.output.len();
        let capacity = self.pool.usable() * self.config.block_size;
        if tokens > capacity {
            return Err(SubmitError::TooLong { tokens, capacity });
        }
        let ready = self.front_end_free.max(now) + self.timing.front_end(request.prompt.len());
        self.front_end_free = ready;
        let id = self.next_id;
        self.next_id += 1;
        self.arrivals
            .push_back((ready + self.timing.transit(), Sequence::new(id, request, now)));
        Ok(id)
    }

    /// Whether blocks are held for other engines.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many blocks, named by their chained hashes, are in the cache from the first on.
    pub fn cached(&self, hashes: &[u64]) -> usize {
        let known = hashes
            .iter()
            .take_while(|hash| self.pool.lookup(**hash).is_some());
        if self.config.prefix_caching {
            known.count()
        } else {
            0
        }
    }

    /// Ends a request at once and frees its blocks; says whether it was still there.
    pub fn abort(&mut self, now: Duration, id: RequestId, events: &mut Vec<Event>) -> bool {
        let sequence = if let Some(at) = self.running.iter().position(|s| s.id == id) {
            Some(self.running.remove(at))
        } else if let Some(at) = self.waiting.iter().position(|s| s.id == id) {
            self.waiting.remove(at)
        } else if let Some(at) = self.arrivals.iter().position(|(_, s)| s.id == id) {
            self.arrivals.remove(at).map(|(_, s)| s)
        } else {
            None
        };
        let Some(mut sequence) = sequence else {
            return false;
        };
        self.free_blocks(&mut sequence);
        events.push(Event::Finished {
            id,
            summary: sequence.summary(FinishReason::Abort, now),
        });
        true
    }

    /// When [`Engine::poll`] has something to do next; `None` while there is no work.
    pub fn next(&self) -> Option<Duration> {
        if let Some(step) = &self.step {
            return Some(step.end);
        }
        let arrival = self.arrivals.front().map(|(ready, _)| *ready);
        let due = self.running.iter().map(|s| s.due).min();
        [arrival, due, self.held.next()].into_iter().flatten().min()
    }

    /// Does everything that is due at `now` and appends what happened.
    pub fn poll(&mut self, now: Duration, events: &mut Vec<Event>) {
        // A late wake-up must not push what was due before it: catch up from where the work was due.
        let mut time = self.next().map_or(now, |next| next.min(now)).max(self.clock);
        loop {
            if let Some(step) = &self.step {
                if step.end > now {
                    return;
                }
                // The next step follows the last without the caller's wake-up delay between them.
                time = step.end;
                let (tokens, duration) = (step.tokens, step.duration);
                self.step = None;
                self.finish_step(time, duration, tokens, events);
            }
            self.clock = time;
            self.take_arrivals(time);
            let expired = self.held.expire(time, &mut self.pool);
            events.extend(expired.into_iter().map(|id| Event::Expired { id }));
            if self.start_step(time) {
                continue;
            }
            match self.next() {
                Some(next) if next <= now => time = next.max(time),
                _ => return,
            }
        }
    }

    fn take_arrivals(&mut self, now: Duration) {
        while self.arrivals.front().is_some_and(|(ready, _)| *ready <= now) {
            if let Some((ready, mut sequence)) = self.arrivals.pop_front() {
                sequence.queued = ready;
                self.waiting.push_back(sequence);
            }
        }
    }

    /// Plans the next step; false when nothing can be computed now.
    fn start_step(&mut self, now: Duration) -> bool {
        let mut budget = self.config.max_batched_tokens;
        let mut load = StepLoad::default();
        let mut scheduled = 0;
        let preempted = self.schedule_running(now, &mut budget, &mut load, &mut scheduled);
        if !preempted {
            self.schedule_waiting(now, &mut budget, &mut load, &mut scheduled);
        }
        if scheduled == 0 {
            return false;
        }
        let tokens = (self.config.max_batched_tokens - budget) as u64;
        let duration = self.timing.step(&load);
        self.step = Some(Step {
            end: now + duration,
            duration,
            tokens,
        });
        true
    }

    fn schedule_running(
        &mut self,
        now: Duration,
        budget: &mut usize,
        load: &mut StepLoad,
        scheduled: &mut usize,
    ) -> bool {
        let mut preempted = false;
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let sequence = &self.running[index];
            if sequence.due > now {
                index += 1;
                continue;
            }
            let count = (sequence.tokens() - sequence.computed).min(*budget);
            let needed = self
                .blocks_for(sequence.computed + count)
                .saturating_sub(sequence.blocks.len());
            while self.pool.free() < needed && self.running.len() > index {
                self.preempt_youngest();
                preempted = true;
            }
            if self.running.len() == index {
                break;
            }
            self.schedule(index, count, load);
            *budget -= count;
            *scheduled += 1;
            index += 1;
        }
        preempted
    }

    fn schedule_waiting(
        &mut self,
        now: Duration,
        budget: &mut usize,
        load: &mut StepLoad,
        scheduled: &mut usize,
    ) {
        let mut adapters = self.running_adapters();
        let mut skipped = 0;
        while *budget > 0 && self.running.len() < self.config.max_sequences {
            let Some(sequence) = self.waiting.get_mut(skipped) else {
                return;
            };
            let new_adapter = sequence
                .request
                .adapter
                .clone()
                .filter(|name| !adapters.contains(name));
            if new_adapter.is_some() && adapters.len() >= self.config.max_adapters {
                skipped += 1;
                continue;
            }

            // The last token is computed in any case: it yields the next one.
            let block_size = self.config.block_size;
            let total = sequence.tokens();
            let mut hits = Vec::new();
            if self.config.prefix_caching {
                for index in 0..(total - 1) / block_size {
                    let Some(id) = self.pool.lookup(sequence.block_hash(index, block_size)) else {
                        break;
                    };
                    hits.push(id);
                }
            }
            let revived = hits.iter().filter(|id| self.pool.is_free(**id)).count();
            if total.div_ceil(block_size) - hits.len() + revived > self.pool.free() {
                return;
            }
            let Some(mut sequence) = self.waiting.remove(skipped) else {
                return;
            };
            for id in &hits {
                self.pool.acquire(*id);
            }
            let local = hits.len() * block_size;
            // Blocks of elsewhere are read once; lost to preemption, they are computed here.
            let import = sequence.request.import.take();
            let imported = import.map_or(0, |import| import.tokens.min(total - 1));
            sequence.computed = local.max(imported);
            sequence.published = hits.len();
            sequence.blocks = hits;
            let import = import.filter(|_| imported > local);
            if import.is_some() {
                self.counters.external_queries += (total - local) as u64;
                self.counters.external_hits += (imported - local) as u64;
            }
            if self.config.prefix_caching && sequence.preemptions == 0 {
                self.counters.prefix_queries += total as u64;
                self.counters.prefix_hits += local as u64;
            }
            if sequence.admitted.is_none() {
                sequence.admitted = Some(now);
                sequence.cached_tokens = sequence.computed;
                sequence.imported_tokens = sequence.computed - local;
            }
            adapters.extend(new_adapter);

            let uncached = total - sequence.computed;
            let slowdown = sequence.request.slowdown;
            let share = self.slot_share(self.running.len() + 1);
            let mut wait = self
                .timing
                .first_token(uncached, share)
                .map(|wait| wait.mul_f64(slowdown));
            if wait.is_none() && slowdown > 1.0 {
                let alone = StepLoad {
                    prefill_tokens: uncached as u64,
                    ..StepLoad::default()
                };
                wait = Some(self.timing.step(&alone).mul_f64(slowdown - 1.0));
            }
            if let Some(import) = import {
                // With the whole prompt here, only the last token is computed: a step, not a prefill.
                let rest = wait.filter(|_| uncached > 1).unwrap_or_default();
                wait = Some(import.wait + rest);
            }
            sequence.due = now + wait.unwrap_or_default();
            self.running.push(sequence);
            let index = self.running.len() - 1;
            if wait.is_some() {
                // Holds its slot and all its blocks, computes when the time has come.
                self.grow(index, total);
            } else {
                let count = uncached.min(*budget);
                self.schedule(index, count, load);
                *budget -= count;
                *scheduled += 1;
            }
        }
    }

    /// Puts `count` tokens of a running request into the step; the caller has checked the blocks.
    fn schedule(&mut self, index: usize, count: usize, load: &mut StepLoad) {
        let end = self.running[index].computed + count;
        self.grow(index, end);
        let sequence = &mut self.running[index];
        sequence.scheduled = count;
        let (count, start) = (count as u64, sequence.computed as u64);
        if sequence.prefilling() {
            load.prefill_tokens += count;
            load.prefill_pairs += count * start + count * (count + 1) / 2;
        } else {
            load.decode_sequences += 1;
            load.decode_context += start + 1;
        }
    }

    /// Gives a running request blocks for `tokens` and publishes the full ones.
    fn grow(&mut self, index: usize, tokens: usize) {
        let needed = self.blocks_for(tokens);
        let block_size = self.config.block_size;
        let sequence = &mut self.running[index];
        while sequence.blocks.len() < needed {
            let Some(id) = self.pool.allocate() else {
                debug_assert!(false, "free blocks were counted before");
                break;
            };
            sequence.blocks.push(id);
        }
        if self.config.prefix_caching {
            for full in sequence.published..tokens / block_size {
                let hash = sequence.block_hash(full, block_size);
                self.pool.publish(sequence.blocks[full], hash);
            }
            sequence.published = sequence.published.max(tokens / block_size);
        }
    }

    fn finish_step(&mut self, now: Duration, duration: Duration, tokens: u64, events: &mut Vec<Event>) {
        events.push(Event::Step { tokens });
        let share = self.slot_share(self.running.len());
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &mut self.running[index];
            sequence.computed += std::mem::take(&mut sequence.scheduled);
            if sequence.computed < sequence.tokens() {
                index += 1;
                continue;
            }
            sequence.generated += 1;
            self.counters.generated_tokens += 1;
            let (id, latency) = (sequence.id, now.saturating_sub(sequence.last_token));
            sequence.last_token = now;
            if sequence.first_token.is_none() {
                sequence.first_token = Some(now);
                self.counters.prompt_tokens += sequence.request.prompt.len() as u64;
                events.push(Event::FirstToken {
                    id,
                    latency,
                    cached_tokens: sequence.cached_tokens,
                });
            } else {
                events.push(Event::Token { id, latency });
            }
            if sequence.generated == sequence.request.output.len() {
                let mut sequence = self.running.remove(index);
                self.hold_blocks(&mut sequence, now, events);
                self.free_blocks(&mut sequence);
                events.push(Event::Finished {
                    id,
                    summary: sequence.summary(sequence.request.finish, now),
                });
                continue;
            }
            let slowdown = sequence.request.slowdown;
            sequence.due = match self.timing.next_token(share) {
                Some(wait) => now + wait.mul_f64(slowdown),
                None => now + duration.mul_f64((slowdown - 1.0).max(0.0)),
            };
            index += 1;
        }
    }

    fn preempt_youngest(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.free_blocks(&mut sequence);
            sequence.computed = 0;
            sequence.scheduled = 0;
            sequence.preemptions += 1;
            self.counters.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    /// The end of a sequence goes first: its beginning is what others may share.
    fn free_blocks(&mut self, sequence: &mut Sequence) {
        for id in sequence.blocks.drain(..).rev() {
            self.pool.release(id);
        }
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.config.block_size)
    }

    /// Share of the other slots that are taken, 0 to 1.
    fn slot_share(&self, running: usize) -> f64 {
        if self.config.max_sequences <= 1 {
            return 0.0;
        }
        running.saturating_sub(1) as f64 / (self.config.max_sequences - 1) as f64
    }
}

#[cfg(test)]
mod tests;
