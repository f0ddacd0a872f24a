//! The flags of the connectors.

use std::time::Duration;

use llmd_process::pflag::Flags;
use prometheus::Registry;

use super::{OptionError, ranged, value};
use crate::connector::Connector;
use crate::connector::mooncake::Mooncake;
use crate::connector::moriio::{Moriio, Ports};
use crate::connector::peers::Peers;
use crate::resolver::{Resolver, Timing};

/// A connector as it is asked for, without the parts that run.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    NixlV2,
    Moriio(Box<WantedMoriio>),
    Sglang { bootstrap_port: u16 },
    Mooncake { bootstrap_port: u16 },
    Offloading,
    SharedStorage,
}

#[derive(Clone, Debug)]
pub(crate) struct WantedMoriio {
    is_parallel: bool,
    patience: Duration,
    own_host: String,
    decode: Ports,
    prefill: Ports,
    tensor_ranks: u16,
    data_ranks: u16,
    local_data_ranks: u16,
    prefill_hosts: Vec<String>,
    decode_hosts: Vec<String>,
    timing: Timing,
}

impl Wanted {
    /// Reads `--kv-connector` and what belongs to it.
    pub(super) fn read(flags: &Flags, env: &impl Fn(&str) -> Option<String>) -> Result<Self, OptionError> {
        let name = flags.string("kv-connector");
        let writes = flags.bool("moriio-write-mode");
        if writes && name != "nixlv2" {
            let fix = "needs --kv-connector=nixlv2";
            return Err(value("moriio-write-mode", "true", fix));
        }
        if flags.bool("moriio-parallel-dispatch") && !writes {
            let fix = "needs --moriio-write-mode";
            return Err(value("moriio-parallel-dispatch", "true", fix));
        }
        Ok(match name.as_str() {
            "nixlv2" if writes => Self::Moriio(Box::new(moriio(flags, env)?)),
            "nixlv2" => Self::NixlV2,
            "sglang" => Self::Sglang {
                bootstrap_port: port_of(env, "SGLANG_BOOTSTRAP_PORT")?.unwrap_or(8998),
            },
            "mooncake" => Self::Mooncake {
                bootstrap_port: port(flags, "mooncake-bootstrap-port", env, "MOONCAKE_BOOTSTRAP_PORT")?,
            },
            "offloading" => Self::Offloading,
            "shared-storage" => Self::SharedStorage,
            other => {
                let fix = "use nixlv2, sglang, mooncake, offloading or shared-storage";
                return Err(value("kv-connector", other, fix));
            }
        })
    }

    /// Whether engines with this connector have a tier that gives blocks to peers.
    fn has_tier(&self, flags: &Flags) -> bool {
        match self {
            Self::Offloading => true,
            Self::NixlV2 | Self::Moriio(_) => flags.bool("enable-p2p-pull"),
            Self::Sglang { .. } | Self::Mooncake { .. } | Self::SharedStorage => false,
        }
    }

    /// The flags of peers.
    pub(super) fn peers(
        &self,
        flags: &Flags,
        env: &impl Fn(&str) -> Option<String>,
        (first_port, ranks): (u16, u16),
    ) -> Result<Peers, OptionError> {
        Ok(Peers {
            port: port(flags, "p2p-connector-port", env, "P2P_CONNECTOR_PORT")?,
            ranks,
            first_port,
            can_pull: self.has_tier(flags),
        })
    }

    /// The connector itself.
    ///
    /// # Errors
    /// Another metric has the name of one of its own.
    pub(crate) fn build(&self, registry: &Registry) -> Result<Connector, prometheus::Error> {
        Ok(match self {
            Self::NixlV2 => Connector::NixlV2,
            Self::Moriio(wanted) => Connector::Moriio(Box::new(wanted.build(registry)?)),
            Self::Sglang { bootstrap_port } => Connector::Sglang {
                bootstrap_port: *bootstrap_port,
            },
            Self::Mooncake { bootstrap_port } => {
                Connector::Mooncake(Box::new(Mooncake::new(*bootstrap_port)))
            }
            Self::Offloading => Connector::Offloading,
            Self::SharedStorage => Connector::SharedStorage,
        })
    }
}

impl WantedMoriio {
    fn build(&self, registry: &Registry) -> Result<Moriio, prometheus::Error> {
        let wanted = self.clone();
        Ok(Moriio {
            is_parallel: wanted.is_parallel,
            patience: wanted.patience,
            own_host: wanted.own_host,
            decode: wanted.decode,
            prefill: wanted.prefill,
            tensor_ranks: wanted.tensor_ranks,
            data_ranks: wanted.data_ranks,
            local_data_ranks: wanted.local_data_ranks,
            prefill_hosts: wanted.prefill_hosts,
            decode_hosts: wanted.decode_hosts,
            resolver: Resolver::new(wanted.timing, registry)?,
        })
    }
}

fn moriio(flags: &Flags, env: &impl Fn(&str) -> Option<String>) -> Result<WantedMoriio, OptionError> {
    let given = flags.string("moriio-local-pod-ip");
    let own_host = Some(given)
        .filter(|host| !host.is_empty())
        .or_else(|| env("POD_IP"));
    let Some(own_host) = own_host.filter(|host| !host.is_empty()) else {
        let fix = "--moriio-write-mode needs the address of this pod: set it, or the variable POD_IP (fieldRef status.podIP)";
        return Err(value("moriio-local-pod-ip", "", fix));
    };
    let ports = |side: &'static [&'static str; 2]| {
        let [handshake, notify] = side;
        Ok::<_, OptionError>(Ports {
            handshake: ranged(flags, handshake, 1, 65535)?,
            notify: ranged(flags, notify, 1, 65535)?,
        })
    };
    let data_ranks = ranged(flags, "moriio-dp-size", 1, 4096)?;
    let local_data_ranks = ranged(flags, "moriio-dp-size-local", 0, 4096)?;
    let hosts = |flag: &'static str| {
        let hosts = list(&flags.string(flag));
        // One rank's pod is found by its number: pods × local ranks are all ranks.
        if hosts.len() > 1 && hosts.len() * usize::from(local_data_ranks) != usize::from(data_ranks) {
            let fix = format!(
                "names {} pods; --moriio-dp-size={data_ranks} has to be that many times --moriio-dp-size-local={local_data_ranks}",
                hosts.len()
            );
            return Err(value(flag, &flags.string(flag), &fix));
        }
        Ok(hosts)
    };
    let seconds = |name: &str, default: u64| {
        let given = env(name)
            .and_then(|given| given.parse().ok())
            .filter(|seconds| *seconds > 0);
        Duration::from_secs(given.unwrap_or(default))
    };
    Ok(WantedMoriio {
        is_parallel: flags.bool("moriio-parallel-dispatch"),
        patience: flags.duration("moriio-parallel-decode-wait-timeout"),
        own_host,
        decode: ports(&["moriio-decode-handshake-port", "moriio-decode-notify-port"])?,
        prefill: ports(&["moriio-prefill-handshake-port", "moriio-prefill-notify-port"])?,
        tensor_ranks: ranged(flags, "moriio-tp-size", 1, 4096)?,
        data_ranks,
        local_data_ranks,
        prefill_hosts: hosts("moriio-remote-hosts")?,
        decode_hosts: hosts("moriio-decode-hosts")?,
        timing: Timing {
            fresh: seconds("MORIIO_DNS_RESOLVE_TTL_SECONDS", 30),
            deadline: seconds("MORIIO_DNS_RESOLVE_TIMEOUT_SECONDS", 5),
        },
    })
}

/// The entries of a comma list.
pub(super) fn list(text: &str) -> Vec<String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(str::to_owned).collect()
}

/// The flag, or where it is not given the variable.
fn port(
    flags: &Flags,
    flag: &'static str,
    env: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
) -> Result<u16, OptionError> {
    match port_of(env, variable)? {
        Some(port) if !flags.is_set(flag) => Ok(port),
        _ => ranged(flags, flag, 1, 65535),
    }
}

fn port_of(
    env: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
) -> Result<Option<u16>, OptionError> {
    let Some(given) = env(variable).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    match given.parse() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => Err(OptionError::Variable {
            variable,
            value: given,
            fix: "must be a port, a number from 1 to 65535",
        }),
    }
}
