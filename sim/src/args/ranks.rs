//! Flags of data-parallel ranks, as vLLM takes them.

use super::{ConfigError, at_least_one, range};

/// Flags that multiply the engine.
#[derive(Clone, Debug, clap::Args)]
pub struct RankArgs {
    /// Engines of the whole group, each with a scheduler and a cache of its own.
    #[arg(long, default_value_t = 1)]
    pub data_parallel_size: usize,
    /// Engines of this process; default: all of the group.
    #[arg(long)]
    pub data_parallel_size_local: Option<usize>,
    /// Number of this process' first engine within the group.
    #[arg(long)]
    pub data_parallel_start_rank: Option<usize>,
    /// Number of this process within the group, in place of its first engine's.
    #[arg(long, conflicts_with = "data_parallel_start_rank")]
    pub node_rank: Option<usize>,
    /// Each engine of this process has a port of its own: `--port` and those after it.
    #[arg(long, conflicts_with = "data_parallel_hybrid_lb")]
    pub data_parallel_multi_port_external_lb: bool,
    /// One port for the engines of this process; other processes of the group have theirs.
    #[arg(long)]
    pub data_parallel_hybrid_lb: bool,
    /// Port that answers for all engines of this process: `/health`, and `/readyz` when all are ready.
    #[arg(long, requires = "data_parallel_multi_port_external_lb")]
    pub data_parallel_supervisor_port: Option<u16>,
    /// Host of the group's first process, where the others report.
    #[arg(long)]
    pub data_parallel_address: Option<String>,
    /// Port on which the group's first process listens for the others.
    #[arg(long, default_value_t = 29550)]
    pub data_parallel_rpc_port: u16,
    /// Experts of the model are spread over the group: a step has no other cost here, but no engine of the group
    /// answers before all processes are there.
    #[arg(long)]
    pub enable_expert_parallel: bool,
}

/// How clients reach the engines of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All at one.
    One,
    /// Each at its own.
    PerRank,
}

/// Where the processes of a group find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAddress {
    /// Host of the first process.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Checked data-parallel ranks of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Engines of the group.
    pub size: usize,
    /// Engines of this process.
    pub local: usize,
    /// Number of its first one.
    pub start: usize,
    /// How clients reach them.
    pub ports: Ports,
    /// Port that answers for all of them.
    pub supervisor: Option<u16>,
    /// Where the processes meet, if there are several.
    pub group: Option<GroupAddress>,
}

impl RankArgs {
    pub(super) fn ranks(self, port: u16) -> Result<Ranks, ConfigError> {
        let size = self.data_parallel_size;
        at_least_one("data-parallel-size", size)?;
        let local = self.data_parallel_size_local.unwrap_or(size);
        at_least_one("data-parallel-size-local", local)?;
        if !size.is_multiple_of(local) {
            let fix = format!("--data-parallel-size {size} must be a multiple of it");
            return Err(range("data-parallel-size-local", local, fix));
        }
        let start = match (self.data_parallel_start_rank, self.node_rank) {
            (Some(start), _) => start,
            (None, Some(node)) => node.saturating_mul(local),
            (None, None) => 0,
        };
        if !start.is_multiple_of(local) || start >= size {
            let fix =
                format!("a multiple of --data-parallel-size-local {local} below --data-parallel-size {size}");
            return Err(range("data-parallel-start-rank", start, fix));
        }
        let ports = if self.data_parallel_multi_port_external_lb {
            Ports::PerRank
        } else {
            Ports::One
        };
        if ports == Ports::PerRank && usize::from(port) + local > 65_536 {
            return Err(range("port", port, format!("room for {local} ports after it")));
        }
        if size > local && ports == Ports::One && !self.data_parallel_hybrid_lb {
            return Err(ConfigError::Needs {
                flag: "data-parallel-size-local",
                needs: "data-parallel-hybrid-lb",
                fix: "engines of several processes are reached at their own ports: choose it or --data-parallel-multi-port-external-lb",
            });
        }
        let group = match (size > local, self.data_parallel_address) {
            (false, _) => None,
            (true, Some(host)) => Some(GroupAddress {
                host,
                port: self.data_parallel_rpc_port,
            }),
            (true, None) => {
                return Err(ConfigError::Needs {
                    flag: "data-parallel-size-local",
                    needs: "data-parallel-address",
                    fix: "the processes of a group meet at the first one's host",
                });
            }
        };
        Ok(Ranks {
            size,
            local,
            start,
            ports,
            supervisor: self.data_parallel_supervisor_port,
            group,
        })
    }
}
