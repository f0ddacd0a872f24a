//! The router's translation: file discovery takes the place of Kubernetes discovery, and nothing else of its
//! configuration changes.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::plan::{Pool, RouterSettings, Workload};
use super::ports;
use crate::error::LocalError;

/// Rendered port of the router's HTTP side, when no Service says otherwise.
pub const PROXY_PORT: u16 = 8081;

/// Name and type of the discovery plugin (llm-d-router `file-discovery`).
const FILE_DISCOVERY: &str = "file-discovery";

/// Flags of Kubernetes discovery; the endpoints file answers what they ask.
const DISCOVERY_FLAGS: [&str; 2] = ["--endpoint-selector", "--endpoint-target-ports"];

/// Whether a workload is the router (`app.kubernetes.io/component: epp`).
pub fn is_router(workload: &Workload) -> bool {
    workload
        .labels()
        .get("app.kubernetes.io/component")
        .is_some_and(|component| component == "epp")
}

/// Rewrites the router's arguments and configuration; returns the pool that its selector flags describe.
pub fn translate(
    workload: &mut Workload,
    config_maps: &mut BTreeMap<String, BTreeMap<String, String>>,
    settings: &RouterSettings,
) -> Result<Option<Pool>, LocalError> {
    let reference = workload.reference();
    let Some(spec) = workload.template.spec.as_mut() else {
        return Err(LocalError::NoRouter);
    };
    let Some(container) = spec.containers.first_mut() else {
        return Err(LocalError::NoRouter);
    };
    let args = container.args.get_or_insert_default();
    let pool = pool_of(args);
    drop_flags(args);
    args.push(format!("--proxy-bind-address={}", settings.bind));
    if !ports::has_flag(args, "--bind-address") {
        args.push("--bind-address=127.0.0.1".to_owned()); // gRPC, health and metrics have no key
    }
    if let Some(path) = &settings.api_key_file {
        args.push(format!("--proxy-api-key-file={}", path.display()));
    }
    let path = flag_value(args, "--config-file").ok_or_else(|| LocalError::Unsupported {
        object: reference,
        what: "a router without `--config-file`".to_owned(),
    })?;
    let key = path.rsplit('/').next().unwrap_or_default().to_owned();
    let mounted: Vec<String> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref().map(|reference| reference.name.clone()))
        .collect();
    let Some(name) = mounted
        .into_iter()
        .find(|name| config_maps.get(name).is_some_and(|data| data.contains_key(&key)))
    else {
        return Err(LocalError::RouterConfig {
            config_map: String::new(),
            key,
            problem: "is in none of the router's ConfigMaps".to_owned(),
        });
    };
    if let Some(config) = config_maps.get_mut(&name).and_then(|data| data.get_mut(&key)) {
        *config = with_file_discovery(config, settings).map_err(|problem| LocalError::RouterConfig {
            config_map: name,
            key,
            problem,
        })?;
    }
    Ok(pool)
}

/// Adds the `file-discovery` plugin and makes it the discovery.
fn with_file_discovery(config: &str, settings: &RouterSettings) -> Result<String, String> {
    let mut document: Value = serde_yaml::from_str(config).map_err(|error| error.to_string())?;
    let root = document.as_mapping_mut().ok_or("is no mapping")?;
    let parameters = mapping([
        ("path", Value::from(settings.endpoints_file.display().to_string())),
        ("watchFile", Value::from(true)),
    ]);
    let plugin = mapping([
        ("type", Value::from(FILE_DISCOVERY)),
        ("name", Value::from(FILE_DISCOVERY)),
        ("parameters", Value::Mapping(parameters)),
    ]);
    let plugins = root
        .entry(Value::from("plugins"))
        .or_insert_with(|| Value::Sequence(Vec::new()));
    let plugins = plugins.as_sequence_mut().ok_or("`plugins` is no list")?;
    plugins.retain(|entry| entry.get("type").and_then(Value::as_str) != Some(FILE_DISCOVERY));
    plugins.push(Value::Mapping(plugin));
    let data_layer = root
        .entry(Value::from("dataLayer"))
        .or_insert_with(|| Value::Mapping(Mapping::new()));
    let data_layer = data_layer.as_mapping_mut().ok_or("`dataLayer` is no mapping")?;
    let discovery = mapping([("pluginRef", Value::from(FILE_DISCOVERY))]);
    data_layer.insert(Value::from("discovery"), Value::Mapping(discovery));
    serde_yaml::to_string(&document).map_err(|error| error.to_string())
}

fn mapping<const N: usize>(entries: [(&str, Value); N]) -> Mapping {
    entries
        .into_iter()
        .map(|(key, value)| (Value::from(key), value))
        .collect()
}

/// `--endpoint-selector=a=b,c=d --endpoint-target-ports=8000,8001` as a pool.
fn pool_of(args: &[String]) -> Option<Pool> {
    let selector = flag_value(args, "--endpoint-selector")?;
    let selector = selector
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let ports = flag_value(args, "--endpoint-target-ports").unwrap_or_default();
    let ports = ports
        .split(',')
        .filter_map(|port| port.trim().parse().ok())
        .collect();
    Some(Pool { selector, ports })
}

fn flag_value(args: &[String], flag: &str) -> Option<String> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == flag {
            return rest.next().cloned();
        }
        if let Some(value) = arg.strip_prefix(flag).and_then(|tail| tail.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

fn drop_flags(args: &mut Vec<String>) {
    for flag in DISCOVERY_FLAGS {
        while let Some(at) = args
            .iter()
            .position(|arg| ports::has_flag(std::slice::from_ref(arg), flag))
        {
            let separate_value = args[at] == flag && args.len() > at + 1;
            args.drain(at..=at + usize::from(separate_value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> RouterSettings {
        RouterSettings {
            endpoints_file: "/run/x/endpoints.yaml".into(),
            bind: "127.0.0.1".parse().unwrap(),
            port: 8080,
            api_key_file: None,
        }
    }

    #[test]
    fn only_discovery_changes_in_the_configuration() {
        let config = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                      schedulingProfiles:\n- name: default\n  plugins:\n  - {pluginRef: queue-scorer, weight: 2}\n\
                      dataLayer:\n  injectDefaults: false\n";
        let translated: Value =
            serde_yaml::from_str(&with_file_discovery(config, &settings()).unwrap()).unwrap();
        let mut expected: Value = serde_yaml::from_str(config).unwrap();
        let plugin = "{type: file-discovery, name: file-discovery, parameters: {path: /run/x/endpoints.yaml, watchFile: true}}";
        expected["plugins"]
            .as_sequence_mut()
            .unwrap()
            .push(serde_yaml::from_str(plugin).unwrap());
        expected["dataLayer"]["discovery"] = serde_yaml::from_str("{pluginRef: file-discovery}").unwrap();
        assert_eq!(translated, expected);
        let again = with_file_discovery(&serde_yaml::to_string(&translated).unwrap(), &settings()).unwrap();
        assert_eq!(
            serde_yaml::from_str::<Value>(&again).unwrap(),
            expected,
            "translating twice changes nothing"
        );
    }

    #[test]
    fn the_selector_flags_become_the_pool_and_go() {
        let mut args: Vec<String> = [
            "--pool-name=x",
            "--endpoint-selector=a=b,c=d",
            "--endpoint-target-ports",
            "8000,8001",
            "--v=2",
        ]
        .map(str::to_owned)
        .to_vec();
        let pool = pool_of(&args).unwrap();
        assert_eq!(pool.ports, [8000, 8001]);
        assert_eq!(
            pool.selector,
            BTreeMap::from([("a".into(), "b".into()), ("c".into(), "d".into())])
        );
        drop_flags(&mut args);
        assert_eq!(args, ["--pool-name=x", "--v=2"]);
    }
}
