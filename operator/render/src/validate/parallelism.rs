//! How one engine is split over accelerators and pods.

use llmd_crds::{LoadBalancing, Pool};

use super::Resolver;
use crate::field_error::{FieldError, Problem};
use crate::names::MOST_RANKS;
use crate::validated::ValidatedParallelism;

/// Of a node, unless an author says otherwise.
const ACCELERATORS: i32 = 8;

impl Resolver<'_> {
    /// Resolves the parallelism of a pool that stands at `field`.
    pub(super) fn parallelism(&mut self, pool: &Pool, field: &str) -> ValidatedParallelism {
        let wanted = pool.parallelism.clone().unwrap_or_default();
        let data = wanted.data.unwrap_or(1);
        // the largest share that divides evenly; an author's own is checked below
        let even = (1..=data.min(MOST_RANKS)).rev().find(|local| data % local == 0);
        let (tensor, pipeline) = (wanted.tensor.unwrap_or(1), wanted.pipeline.unwrap_or(1));
        let together = |parts: &i32| pipeline % parts == 0 && tensor * parts <= ACCELERATORS;
        let resolved = ValidatedParallelism {
            tensor,
            pipeline,
            pipeline_local: wanted
                .pipeline_local
                .unwrap_or((1..=pipeline).rev().find(together).unwrap_or(1)),
            data,
            data_local: wanted.data_local.unwrap_or(even.unwrap_or(1)),
            expert: wanted.expert.unwrap_or(false),
            balancing: pool.load_balancing.unwrap_or_default(),
        };
        let mut refuse = |name: &str, message: String, value: i32| {
            let field = format!("{field}.{name}");
            self.errors
                .push(FieldError::new(field, Problem::Invalid, message).value(&value));
        };
        if resolved.data % resolved.data_local != 0 {
            let message = format!(
                "must divide parallelism.data, which is {data}: every pod of an engine has the same number of ranks"
            );
            refuse("parallelism.dataLocal", message, resolved.data_local);
        }
        if resolved.balancing == LoadBalancing::External && resolved.data_local > MOST_RANKS {
            let message = format!(
                "an InferencePool has at most {MOST_RANKS} ports, so no more ranks of a pod can be told apart: lower it, or set loadBalancing to Hybrid"
            );
            refuse("parallelism.dataLocal", message, resolved.data_local);
        }
        if resolved.balancing == LoadBalancing::Hybrid && resolved.data_local == 1 {
            let message = "a pod with one rank has nothing to spread: leave loadBalancing out, or raise parallelism.dataLocal".to_owned();
            refuse("loadBalancing", message, resolved.data_local);
        }
        if pipeline % resolved.pipeline_local != 0 {
            let message = format!(
                "must divide parallelism.pipeline, which is {pipeline}: every pod of an engine has the same number of parts"
            );
            refuse("parallelism.pipelineLocal", message, resolved.pipeline_local);
        }
        if resolved.stages() > 1 && data > 1 {
            let message = "an engine of several pods has either parts of the layers in them or ranks, not both: lower parallelism.data to 1, or put all parts in one pod with pipelineLocal".to_owned();
            refuse("parallelism.pipeline", message, pipeline);
        }
        if resolved.expert && resolved.tensor * resolved.data == 1 {
            let message = "one accelerator holds all experts: raise parallelism.data or parallelism.tensor, or leave expert out".to_owned();
            refuse("parallelism.expert", message, 1);
        }
        resolved
    }
}
