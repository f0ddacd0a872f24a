//! `file-discovery`: the endpoints of the pool from a YAML or JSON file.
//!
//! | parameter | default |
//! |---|---|
//! | `path` | required |
//! | `watchFile` | false |
//!
//! ```yaml
//! endpoints:
//! - name: engine-0          # unique in the namespace
//!   namespace: default      # optional
//!   address: 127.0.0.1      # an IP address
//!   port: "8000"
//!   labels: {llm-d.ai/engine-type: vllm}
//! ```
//!
//! `multicluster-file-discovery` is the same for endpoints that are clusters: the address may be a host name, and the
//! labels `metricsAddress` and `metricsPort` say where the metrics of the cluster are.
//!
//! A bad entry is skipped and named in a warning, the others count. This file holds the parameters
//! and the format; the server crate reads and watches.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use llmd_epp_api::registry::Component;
use llmd_epp_api::{BuildError, EndpointName, EndpointSpec, Plugin, PluginType, Reach, Stability};
use serde::Deserialize;
use serde_yaml::Value;

/// Type name in configurations.
pub const TYPE: &str = "file-discovery";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        let built = FileDiscovery::new(&context.parameters()?, Members::Engines)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::Discovery(Arc::new(built))))
    },
};

/// The registry line of the type for endpoints that are clusters.
pub const MULTICLUSTER: PluginType = PluginType {
    name: "multicluster-file-discovery",
    stability: Stability::Alpha,
    default_producer_of: &[],
    build: |context| {
        let built = FileDiscovery::new(&context.parameters()?, Members::Clusters)
            .map_err(|error| BuildError::Shape(error.to_string()))?;
        Ok(Plugin::component(Component::Discovery(Arc::new(built))))
    },
};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

const DEFAULT_NAMESPACE: &str = "default";

/// Parameters as written in the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Parameters {
    /// The file.
    pub path: PathBuf,
    /// Apply later changes of the file.
    pub watch_file: bool,
}

/// Why the parameters were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No path.
    #[error("path is required: name the file that lists the endpoints")]
    PathMissing,
}

/// What the endpoints of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Engines at IP addresses.
    Engines,
    /// Other clusters, at addresses or host names.
    Clusters,
}

/// A validated source of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscovery {
    /// What the endpoints are.
    pub members: Members,
    /// The file.
    pub path: PathBuf,
    /// Apply later changes of the file.
    pub watch: bool,
}

impl FileDiscovery {
    /// Validates the parameters.
    pub fn new(parameters: &Parameters, members: Members) -> Result<Self, ParameterError> {
        let Parameters { path, watch_file } = parameters;
        if path.as_os_str().is_empty() {
            return Err(ParameterError::PathMissing);
        }
        Ok(Self {
            members,
            path: path.clone(),
            watch: *watch_file,
        })
    }
}

/// Why a whole file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Over [`MAX_BYTES`].
    #[error("the file has {0} bytes, more than the limit of {MAX_BYTES}")]
    TooLarge(u64),
    /// Not YAML or JSON of the right shape.
    #[error("the file is not a YAML or JSON object with a list 'endpoints': {0}")]
    Syntax(String),
}

/// What a file gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The endpoints, in file order.
    pub endpoints: Vec<EndpointSpec>,
    /// One line per skipped entry or ignored field.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    endpoints: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    address: String,
    port: Port,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Text(String),
    Number(u64),
}

/// Reads the text of an endpoints file.
///
/// Host names are not looked up: the endpoint's address is unspecified then, and [`Reach::host`] has the name.
pub fn parse(text: &[u8], members: Members) -> Result<Listing, FileError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge(text.len() as u64));
    }
    let file: File = serde_yaml::from_slice(text).map_err(|error| FileError::Syntax(error.to_string()))?;
    let mut listing = Listing::default();
    let mut names = HashSet::new();
    for (position, value) in file.endpoints.unwrap_or_default().into_iter().enumerate() {
        match entry(position, value, members, &mut listing.warnings) {
            Ok(spec) if names.insert(spec.name.clone()) => listing.endpoints.push(spec),
            Ok(spec) => listing.warnings.push(format!(
                "endpoints[{position}] skipped: the name '{}' is used twice",
                spec.name
            )),
            Err(reason) => listing
                .warnings
                .push(format!("endpoints[{position}] skipped: {reason}")),
        }
    }
    Ok(listing)
}

fn entry(
    position: usize,
    value: Value,
    members: Members,
    warnings: &mut Vec<String>,
) -> Result<EndpointSpec, String> {
    let Entry {
        name,
        namespace,
        address,
        port,
        labels,
        unknown,
    } = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    if name.is_empty() {
        return Err("name is required".to_owned());
    }
    let (address, host) = match (address.parse::<IpAddr>(), members) {
        (Ok(address), _) => (address, None),
        (Err(_), Members::Clusters) if is_host_name(&address) => {
            (Ipv4Addr::UNSPECIFIED.into(), Some(address.into()))
        }
        (Err(_), Members::Clusters) => {
            return Err(format!(
                "address '{address}' of '{name}' is neither an IP address nor a host name"
            ));
        }
        (Err(_), Members::Engines) => {
            return Err(format!("address '{address}' of '{name}' is not an IP address"));
        }
    };
    let (number, written) = match port {
        Port::Text(text) => (text.parse::<u16>().ok(), text),
        Port::Number(number) => (u16::try_from(number).ok(), number.to_string()),
    };
    let port = number
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("port '{written}' of '{name}' is not a number from 1 to 65535"))?;
    for field in unknown.keys() {
        warnings.push(format!(
            "endpoints[{position}] '{name}': unknown field '{field}' is ignored"
        ));
    }
    let namespace = if namespace.is_empty() {
        DEFAULT_NAMESPACE
    } else {
        &namespace
    };
    Ok(EndpointSpec {
        pod: name.as_str().into(),
        name: EndpointName::new(namespace, name),
        address,
        port,
        rank: 0,
        reach: Reach {
            host,
            ..Reach::default()
        },
        labels: labels.unwrap_or_default(),
    })
}

/// RFC 1123: labels of letters, digits and inner hyphens.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_required() {
        assert_eq!(
            FileDiscovery::new(&Parameters::default(), Members::Engines),
            Err(ParameterError::PathMissing)
        );
    }

    #[test]
    fn yaml_and_json_give_the_same_endpoints() {
        let yaml = b"endpoints:\n- name: a\n  address: 10.0.0.1\n  port: \"8000\"\n  labels: {app: x}\n\
                     - {name: b, namespace: prod, address: '::1', port: 9000}\n";
        let json = br#"{"endpoints":[{"name":"a","address":"10.0.0.1","port":"8000","labels":{"app":"x"}},
                     {"name":"b","namespace":"prod","address":"::1","port":9000}]}"#;
        let listing = parse(yaml, Members::Engines).expect("valid YAML");
        assert_eq!(listing, parse(json, Members::Engines).expect("valid JSON"));
        assert_eq!(listing.warnings, Vec::<String>::new());
        let [a, b] = &listing.endpoints[..] else {
            unreachable!("two endpoints")
        };
        assert_eq!(
            (a.name.to_string().as_str(), a.port, a.labels["app"].as_str()),
            ("default/a", 8000, "x")
        );
        assert_eq!(
            (b.name.to_string().as_str(), b.address.is_ipv6(), b.port),
            ("prod/b", true, 9000)
        );
    }

    #[test]
    fn bad_entries_are_named_and_the_others_count() {
        let listing = parse(
            b"endpoints:\n- {name: good, address: 10.0.0.1, port: '1'}\n- {address: 10.0.0.1, port: '1'}\n\
              - {name: host, address: example.org, port: '1'}\n- {name: zero, address: 10.0.0.1, port: '0'}\n\
              - {name: good, address: 10.0.0.2, port: '1'}\n- 7\n- {name: noport, address: 10.0.0.1}\n\
              - {name: extra, address: 10.0.0.3, port: '1', weight: 3}\n",
            Members::Engines,
        )
        .expect("readable");
        let names: Vec<_> = listing.endpoints.iter().map(|spec| &*spec.name.name).collect();
        assert_eq!(names, ["good", "extra"]);
        let all = listing.warnings.join("\n");
        for part in [
            "endpoints[1] skipped: name is required",
            "address 'example.org' of 'host' is not an IP address",
            "port '0' of 'zero' is not a number from 1 to 65535",
            "the name 'default/good' is used twice",
            "endpoints[5] skipped",
            "missing field `port`",
            "unknown field 'weight' is ignored",
        ] {
            assert!(all.contains(part), "{part} is missing in\n{all}");
        }
    }

    #[test]
    fn an_empty_list_is_a_list_and_anything_else_an_error() {
        assert_eq!(
            parse(b"endpoints: []", Members::Engines).expect("empty"),
            Listing::default()
        );
        for text in [
            &b"endpoints: 3"[..],
            b"- a",
            b"endpoints: [",
            b"endpoint: []",
            b"\xff",
        ] {
            assert!(
                matches!(parse(text, Members::Engines), Err(FileError::Syntax(_))),
                "{text:?} was accepted"
            );
        }
        let large = vec![b' '; MAX_BYTES as usize + 1];
        assert!(matches!(
            parse(&large, Members::Engines),
            Err(FileError::TooLarge(_))
        ));
    }

    #[test]
    fn clusters_may_have_names() {
        let text = b"endpoints:\n- {name: east, address: east.example.org, port: '80'}\n- {name: west, address: 10.0.0.1, port: '80'}\n\
                     - {name: odd, address: -x, port: '80'}\n";
        let listing = parse(text, Members::Clusters).expect("readable");
        let hosts: Vec<_> = listing
            .endpoints
            .iter()
            .map(|spec| spec.reach.host.as_deref())
            .collect();
        assert_eq!(hosts, [Some("east.example.org"), None]);
        assert!(
            listing.warnings[0].contains("neither an IP address nor a host name"),
            "{:?}",
            listing.warnings
        );
    }
}
