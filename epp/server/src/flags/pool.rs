//! Which pods the picker serves: an `InferencePool` by name, or a label selector with ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use llmd_process::pflag::Flags;

use super::{OptionError, path, value};

/// Pool name of upstream's mode without Kubernetes.
const DEFAULT_POOL: &str = "epp";
/// Most ports of a pool (`InferencePool` v1).
const MAX_PORTS: usize = 8;
/// Most addresses of a command line; a file has no such bound.
const MAX_ENDPOINTS: usize = 256;
/// API groups of `InferencePool` with the version that each serves.
const POOL_GROUPS: [(&str, &str); 2] = [
    ("inference.networking.k8s.io", "v1"),
    ("inference.networking.x-k8s.io", "v1alpha2"),
];

/// What decides which pods belong to the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// `--pool-name`: the selector and ports of an `InferencePool`.
    InferencePool {
        /// `--pool-group`.
        group: &'static str,
        /// The version that this group serves.
        version: &'static str,
    },
    /// `--endpoint-selector` and `--endpoint-target-ports`.
    Selector {
        /// Labels that a pod must have; at least one.
        labels: BTreeMap<String, String>,
        /// 1 to 8 distinct ports; an endpoint's rank is its port's place in this list.
        ports: Vec<u16>,
    },
}

/// The pool and how Kubernetes is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// `--pool-name`, else derived from `POD_NAME`, else `epp`: label of the pool metrics, what
    /// objectives and rewrites refer to, part of the lease's name.
    pub name: String,
    /// `--pool-namespace`, else `NAMESPACE`, else `default`.
    pub namespace: String,
    /// `None` when the command line names no pool: the configuration must name a file of endpoints.
    pub membership: Option<Membership>,
    /// `--endpoints`: these and no others; empty where something else says which.
    pub endpoints: Vec<SocketAddr>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--ha-enable-leader-election`.
    pub leader_election: bool,
    /// `--metrics-endpoint-auth`; without Kubernetes nobody can be asked and it has no effect.
    pub metrics_auth: bool,
    /// `POD_NAME`: holder of the lease.
    pub pod_name: Option<String>,
}

pub(super) fn parse(
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<PoolOptions, OptionError> {
    let given = |name: &str| Some(flags.string(name)).filter(|text| !text.is_empty());
    let environment = |name: &str| environment(name).filter(|text| !text.is_empty());
    let pod_name = environment("POD_NAME");
    let (pool, selector) = (given("pool-name"), given("endpoint-selector"));
    let membership = match (&pool, &selector) {
        (Some(_), Some(_)) => return Err(OptionError::Exclusive("pool-name", "endpoint-selector")),
        (Some(_), None) => Some(inference_pool(flags)?),
        (None, Some(selector)) => Some(Membership::Selector {
            labels: labels(selector)?,
            ports: ports(&flags.string("endpoint-target-ports"))?,
        }),
        (None, None) => None,
    };
    if selector.is_none()
        && let Some(ports) = given("endpoint-target-ports")
    {
        let fix = "it belongs to --endpoint-selector: give that too, or leave it out";
        return Err(value("endpoint-target-ports", &ports, fix));
    }
    let endpoints = match given("endpoints") {
        Some(list) => endpoints(flags, &list)?,
        None => Vec::new(),
    };
    let derived = || selector.as_ref().and(pod_name.as_deref()).map(owner_of);
    Ok(PoolOptions {
        name: pool.or_else(derived).unwrap_or_else(|| DEFAULT_POOL.to_owned()),
        namespace: given("pool-namespace")
            .or_else(|| environment("NAMESPACE"))
            .unwrap_or_else(|| "default".to_owned()),
        membership,
        endpoints,
        kubeconfig: path(flags, "kubeconfig"),
        leader_election: flags.bool("ha-enable-leader-election"),
        metrics_auth: flags.bool("metrics-endpoint-auth"),
        pod_name,
    })
}

/// `10.0.0.1:8000,[fd00::1]:8000`, and nothing beside it that only a cluster has. A pool's name is a label then.
fn endpoints(flags: &Flags, list: &str) -> Result<Vec<SocketAddr>, OptionError> {
    for other in ["endpoint-selector", "kubeconfig"] {
        if !flags.string(other).is_empty() {
            return Err(OptionError::Exclusive("endpoints", other));
        }
    }
    if flags.bool("ha-enable-leader-election") {
        return Err(OptionError::Exclusive("endpoints", "ha-enable-leader-election"));
    }
    let mut addresses = Vec::new();
    for text in list.split(',') {
        let address: Option<SocketAddr> = text.trim().parse().ok();
        let usable = address.filter(|address| address.port() > 0 && !addresses.contains(address));
        let fix = "give different IP addresses with ports, such as 10.0.0.1:8000,[fd00::1]:8000";
        addresses.push(usable.ok_or_else(|| value("endpoints", text, fix))?);
        if addresses.len() > MAX_ENDPOINTS {
            let fix = format!("give at most {MAX_ENDPOINTS}, or a file of endpoints");
            return Err(value("endpoints", text, &fix));
        }
    }
    Ok(addresses)
}

fn inference_pool(flags: &Flags) -> Result<Membership, OptionError> {
    let asked = flags.string("pool-group");
    let known = POOL_GROUPS.into_iter().find(|(group, _)| *group == asked);
    let Some((group, version)) = known else {
        let [(new, _), (old, _)] = POOL_GROUPS;
        return Err(value("pool-group", &asked, &format!("use {new} or {old}")));
    };
    Ok(Membership::InferencePool { group, version })
}

/// `a=b,c=d`: equalities only, as upstream.
fn labels(selector: &str) -> Result<BTreeMap<String, String>, OptionError> {
    let fix = "give equalities such as app=vllm,role=decode";
    let wrong = || value("endpoint-selector", selector, fix);
    let is_text = |text: &str, more: &str| {
        text.chars().all(|character| {
            character.is_ascii_alphanumeric() || "-_.".contains(character) || more.contains(character)
        })
    };
    let mut labels = BTreeMap::new();
    for pair in selector.split(',') {
        let (key, text) = pair.split_once('=').ok_or_else(wrong)?;
        let (key, text) = (key.trim(), text.trim());
        if key.is_empty() || !is_text(key, "/") || !is_text(text, "") {
            return Err(wrong());
        }
        labels.insert(key.to_owned(), text.to_owned());
    }
    Ok(labels)
}

fn ports(list: &str) -> Result<Vec<u16>, OptionError> {
    let wrong = || {
        let fix = format!("give 1 to {MAX_PORTS} different ports such as 8000,8001");
        value("endpoint-target-ports", list, &fix)
    };
    let mut ports = Vec::new();
    for text in list.split(',') {
        let port: u16 = text.trim().parse().map_err(|_| wrong())?;
        if port == 0 || ports.contains(&port) || ports.len() == MAX_PORTS {
            return Err(wrong());
        }
        ports.push(port);
    }
    Ok(ports)
}

/// `<deployment>-<hash>-<suffix>` without its last two parts; another name stays as it is.
fn owner_of(pod: &str) -> String {
    let mut parts = pod.rsplitn(3, '-');
    let is_generated = |part: Option<&str>| {
        part.is_some_and(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
    };
    let generated = is_generated(parts.next()) && is_generated(parts.next());
    match parts.next() {
        Some(owner) if generated && !owner.is_empty() => owner.to_owned(),
        _ => pod.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::EppOptions;
    use super::*;

    fn parse(line: &str, variables: &[(&str, &str)]) -> Result<PoolOptions, OptionError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let arguments = line.split_whitespace().map(OsString::from);
        EppOptions::parse_with(arguments, &variable).map(|options| options.pool)
    }

    #[test]
    fn a_pool_by_name_is_one_of_two_api_versions() {
        let pool = parse("--pool-name p", &[("NAMESPACE", "serving")]).expect("valid");
        assert_eq!((pool.name.as_str(), pool.namespace.as_str()), ("p", "serving"));
        let (group, version) = POOL_GROUPS[0];
        assert_eq!(
            pool.membership,
            Some(Membership::InferencePool { group, version })
        );
        let old = "--pool-name p --pool-group inference.networking.x-k8s.io --pool-namespace n";
        let pool = parse(old, &[("NAMESPACE", "serving")]).expect("valid");
        assert_eq!(pool.namespace, "n");
        let (group, version) = POOL_GROUPS[1];
        assert_eq!(
            pool.membership,
            Some(Membership::InferencePool { group, version })
        );
    }

    #[test]
    fn a_selector_takes_its_pools_name_from_the_pod() {
        let line = "--endpoint-selector app=vllm,llm-d.ai/role=decode --endpoint-target-ports 8000,8001";
        let pool = parse(line, &[("POD_NAME", "qwen-epp-7c9d8f5b6-x2x4z")]).expect("valid");
        assert_eq!(pool.name, "qwen-epp");
        let Some(Membership::Selector { labels, ports }) = pool.membership else {
            panic!("a selector");
        };
        assert_eq!(labels.get("llm-d.ai/role").map(String::as_str), Some("decode"));
        assert_eq!((labels.len(), ports), (2, vec![8000, 8001]));
        for (pod, owner) in [
            ("epp-0", "epp-0"),
            ("a-b-c", "a"),
            ("-b-c", "-b-c"),
            ("a-B-c", "a-B-c"),
        ] {
            assert_eq!(owner_of(pod), owner);
        }
        assert_eq!(parse(line, &[]).expect("valid").name, DEFAULT_POOL);
    }

    #[test]
    fn what_selects_nothing_certain_is_refused_by_name() {
        for (line, name) in [
            (
                "--pool-name p --endpoint-selector a=b --endpoint-target-ports 1",
                "cannot be used together",
            ),
            ("--pool-name p --pool-group example.com", "pool-group"),
            ("--endpoint-selector a=b", "endpoint-target-ports"),
            (
                "--endpoint-selector a=b --endpoint-target-ports 1 --endpoints 10.0.0.1:1",
                "cannot be used together",
            ),
            ("--endpoints 10.0.0.1:1 --kubeconfig k", "cannot be used together"),
            (
                "--endpoints 10.0.0.1:1 --ha-enable-leader-election",
                "cannot be used together",
            ),
            ("--endpoints 10.0.0.1:1,10.0.0.1:1", "endpoints"),
            ("--endpoints example.org:1", "endpoints"),
            ("--endpoints 10.0.0.1:0", "endpoints"),
            ("--endpoints 10.0.0.1", "endpoints"),
            ("--endpoint-target-ports=8000", "endpoint-selector"),
            (
                "--endpoint-selector a --endpoint-target-ports 1",
                "endpoint-selector",
            ),
            (
                "--endpoint-selector =b --endpoint-target-ports 1",
                "endpoint-selector",
            ),
            (
                "--endpoint-selector a=b,c=d=e --endpoint-target-ports 1",
                "endpoint-selector",
            ),
            (
                "--endpoint-selector a=b --endpoint-target-ports 1,1",
                "endpoint-target-ports",
            ),
            (
                "--endpoint-selector a=b --endpoint-target-ports 0",
                "endpoint-target-ports",
            ),
            (
                "--endpoint-selector a=b --endpoint-target-ports 1,2,3,4,5,6,7,8,9",
                "endpoint-target-ports",
            ),
        ] {
            let error = parse(line, &[]).expect_err(line).to_string();
            assert!(error.contains(name), "{line}: {error}");
        }
    }
}
