//! The command line of `llmd operator`.

mod installation;

use std::ffi::OsString;
use std::net::SocketAddr;

use llmd_process::logging::{Format, Logging, level_of_verbosity};
use llmd_process::pflag::{FlagError, FlagSet};
use llmd_render::RenderOptions;

pub use installation::render_options;

/// Why a command line cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// Not a command line of this role.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A value out of its range.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {fix}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        fix: &'static str,
    },
}

/// A command line that makes sense.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--namespaces`; empty is every namespace.
    pub namespaces: Vec<String>,
    /// `--leader-elect`.
    pub leader_elect: bool,
    /// `--lease-namespace`; `None` is the pod's.
    pub lease_namespace: Option<String>,
    /// `--metrics-bind-address`.
    pub metrics: SocketAddr,
    /// `--health-probe-bind-address`.
    pub health: SocketAddr,
    /// What the renderer is told: `--image-registry`, `--image-tag`, `--image-mirror`, `--run-as-user` and the flags
    /// of the engines' way out.
    pub render: RenderOptions,
    /// `--read-engine-logs`.
    pub read_engine_logs: bool,
    /// `-v`, `--log-format`.
    pub logging: Logging,
}

/// Every flag with its default.
pub fn flag_set() -> FlagSet {
    FlagSet::new()
        .string(
            "namespaces",
            "",
            "namespaces to watch, with commas; empty watches all of them",
        )
        .bool(
            "leader-elect",
            true,
            "act only while holding the Lease llmd-operator",
        )
        .string(
            "lease-namespace",
            "",
            "namespace of the Lease; empty is the pod's own",
        )
        .string("metrics-bind-address", ":8080", "address of the metrics page")
        .string(
            "health-probe-bind-address",
            ":8081",
            "address of /healthz and /readyz",
        )
        .string(
            "image-registry",
            "",
            "repository of llmd's own images, such as registry.example/llmd",
        )
        .string(
            "image-tag",
            "",
            "tag of llmd's own images; empty is this version's",
        )
        .string(
            "run-as-user",
            "65532",
            "user and group of all rendered pods; empty where the cluster assigns them (OpenShift)",
        )
        .string(
            "image-mirror",
            "",
            "registry that the default images of Envoy and the engines come from instead of their own",
        )
        .string("engine-http-proxy", "", "HTTP_PROXY of engines that load models over the network")
        .string("engine-https-proxy", "", "HTTPS_PROXY of such engines")
        .string(
            "engine-no-proxy",
            "",
            "hosts that engines reach without a proxy, with commas; those of the cluster are added",
        )
        .string(
            "engine-ca-bundle",
            "",
            "NAME or NAME/KEY of a ConfigMap in the namespaces of the deployments, with all certificate authorities \
             that their engines trust; the key is ca-bundle.crt otherwise",
        )
        .bool(
            "read-engine-logs",
            true,
            "look up phases and failures in the last lines of engines' logs, where RBAC allows it; nothing is quoted",
        )
        .int("v", 2, "log verbosity; 3 logs decisions")
        .shorthand("v", 'v')
        .string("log-format", "json", "json or text")
}

impl Options {
    /// Reads the arguments behind the role's name.
    ///
    /// # Errors
    /// Names the flag and what it may be.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionError> {
        let flags = flag_set().parse(arguments)?;
        let optional = |name| Some(flags.string(name)).filter(|value| !value.is_empty());
        let address = |flag: &'static str| {
            let value = flags.string(flag);
            let whole = if value.starts_with(':') {
                format!("0.0.0.0{value}")
            } else {
                value.clone()
            };
            whole.parse().map_err(|_| OptionError::Value {
                flag,
                value,
                fix: "give ADDRESS:PORT or :PORT",
            })
        };
        if let Some(user) = optional("run-as-user")
            && !user.parse::<i64>().is_ok_and(|user| user > 0)
        {
            return Err(OptionError::Value {
                flag: "run-as-user",
                value: user,
                fix: "give a number above 0 (root is not allowed), or nothing",
            });
        }
        for flag in ["engine-http-proxy", "engine-https-proxy"] {
            if let Some(value) = optional(flag)
                && !value.contains("://")
            {
                let fix = "give a URL, such as http://proxy.example:3128";
                return Err(OptionError::Value { flag, value, fix });
            }
        }
        let format = match flags.string("log-format").as_str() {
            "json" => Format::Json,
            "text" => Format::Text,
            other => {
                return Err(OptionError::Value {
                    flag: "log-format",
                    value: other.to_owned(),
                    fix: "give json or text",
                });
            }
        };
        let names = flags.string("namespaces");
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut namespaces: Vec<String> = names.map(str::to_owned).collect();
        namespaces.sort();
        namespaces.dedup();
        Ok(Self {
            namespaces,
            leader_elect: flags.bool("leader-elect"),
            lease_namespace: optional("lease-namespace"),
            metrics: address("metrics-bind-address")?,
            health: address("health-probe-bind-address")?,
            render: render_options(|name| Some(flags.string(name))),
            read_engine_logs: flags.bool("read-engine-logs"),
            logging: Logging {
                format,
                level: level_of_verbosity(flags.int("v")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, OptionError> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn defaults_and_values_are_read() {
        let options = parse(&[]).unwrap();
        assert!(options.namespaces.is_empty() && options.leader_elect && options.read_engine_logs);
        assert_eq!(options.metrics.port(), 8080);
        let options = parse(&[
            "--namespaces=b, a,b",
            "--leader-elect=false",
            "--health-probe-bind-address=127.0.0.1:1",
        ]);
        let options = options.unwrap();
        assert_eq!(options.namespaces, ["a", "b"]);
        assert_eq!(options.health, "127.0.0.1:1".parse().unwrap());
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let error = parse(&["--metrics-bind-address=nowhere"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--metrics-bind-address") && error.contains("ADDRESS:PORT"),
            "{error}"
        );
        let error = parse(&["--run-as-user=0"]).unwrap_err().to_string();
        assert!(error.contains("--run-as-user"), "{error}");
        assert_eq!(parse(&["--run-as-user="]).unwrap().render.run_as_user, None);
        assert_eq!(parse(&[]).unwrap().render, RenderOptions::default());
        let error = parse(&["--engine-https-proxy=proxy:3128"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--engine-https-proxy") && error.contains("http://"),
            "{error}"
        );
        let error = parse(&["--log-format=xml"]).unwrap_err().to_string();
        assert!(error.contains("--log-format"), "{error}");
    }
}
