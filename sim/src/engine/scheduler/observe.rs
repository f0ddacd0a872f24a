//! What the engine shows: queues, blocks, totals, adapters.

use std::sync::Arc;

use super::{BlockPool, Counters, Engine, Sequence};

impl Engine {
    /// Requests in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests that wait for a slot or blocks.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that have not ended, those in the front end included.
    pub fn unfinished(&self) -> usize {
        self.arrivals.len() + self.waiting.len() + self.running.len()
    }

    /// The KV blocks.
    pub fn blocks(&self) -> &BlockPool {
        &self.pool
    }

    /// Totals since start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Adapters of running requests, each once.
    pub fn running_adapters(&self) -> Vec<Arc<str>> {
        distinct_adapters(self.running.iter())
    }

    /// Adapters of waiting requests, each once.
    pub fn waiting_adapters(&self) -> Vec<Arc<str>> {
        distinct_adapters(self.waiting.iter())
    }
}

fn distinct_adapters<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for adapter in sequences.filter_map(|sequence| sequence.request.adapter.as_ref()) {
        if !names.contains(adapter) {
            names.push(adapter.clone());
        }
    }
    names
}
