//! Requests that enter a pod by one port and name the rank behind it.

use std::net::SocketAddr;

use llmd_epp_api::plugin::SchedulingResult;
use llmd_epp_api::{Cycle, RequestChanges};
use llmd_openai::header;

/// Sends the request to `port` of the chosen pods, with the first rank's own address in
/// `x-data-parallel-host-port`.
pub(super) fn enter(
    cycle: &Cycle<'_>,
    result: SchedulingResult<'_>,
    port: u16,
    changes: &mut RequestChanges,
) {
    let Some(run) = result.runs.get(result.primary) else {
        return;
    };
    let chosen = run
        .picked
        .iter()
        .map(|index| &cycle.snapshot.endpoints[*index as usize]);
    let mut targets: Vec<String> = Vec::with_capacity(run.picked.len());
    for endpoint in chosen {
        if targets.is_empty() {
            let rank = endpoint.target().to_string();
            changes.set_headers.push((header::DATA_PARALLEL.into(), rank));
        }
        let target = SocketAddr::new(endpoint.spec().address, port).to_string();
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if !targets.is_empty() {
        changes.destination = Some(targets.join(",").into());
    }
}
