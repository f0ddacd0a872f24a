//! Where a run comes from, and the rendered objects that follow from it.

use std::path::PathBuf;

use llmd_render::{DecodeError, Document, Inputs, Object, RenderOptions, ValidatedProxy};
use thiserror::Error;

use crate::translate::plan::{Objects, Pool};

/// What `llmd up` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`BUILT_IN`].
    BuiltIn,
    /// A file, followed while it is edited.
    File(PathBuf),
    /// Text from standard input.
    Text(String),
    /// URLs of engines that already run.
    Engines(Vec<String>),
}

/// The document that runs when no file is given.
pub const BUILT_IN: &str = include_str!("source/built_in.yaml");

/// Rendered objects with what the user wants to know about them.
#[derive(Clone, Debug)]
pub struct Service {
    /// Objects to run.
    pub objects: Objects,
    /// Model name that clients send.
    pub model: String,
    /// Lines for the user.
    pub notes: Vec<String>,
}

/// Problems of the input, one line each.
#[derive(Debug, Error)]
#[error("{}", .0.join("; "))]
pub struct InputError(Vec<String>);

impl InputError {
    /// The problems.
    pub fn lines(self) -> Vec<String> {
        self.0
    }
}

impl From<String> for InputError {
    fn from(line: String) -> Self {
        Self(vec![line])
    }
}

impl From<DecodeError> for InputError {
    fn from(error: DecodeError) -> Self {
        Self(vec![error.to_string()])
    }
}

/// Reads, validates and renders `source`; attached engines have no document.
pub fn load(source: &Source) -> Result<Service, InputError> {
    match source {
        Source::BuiltIn | Source::Engines(_) => render(BUILT_IN),
        Source::Text(text) => render(text),
        Source::File(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            render(&text)
        }
    }
}

/// A router with a configuration of its own and no engines of ours.
pub fn router_only(config: &serde_json::Value, models: &[String]) -> Result<Service, InputError> {
    let document = serde_json::json!({
        "apiVersion": "llmd.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "attached"},
        "spec": {
            "path": "simulated",
            "pathVersion": "v1",
            "stopped": true,
            "model": {"name": "attached"},
            "router": {"epp": {"config": {"inline": config}}},
        },
    });
    let mut service = render(&document.to_string())?;
    if let Some(model) = models.first() {
        service.model.clone_from(model);
    }
    Ok(service)
}

fn render(text: &str) -> Result<Service, InputError> {
    let (mut deployments, mut paths, mut accelerators) = (Vec::new(), Vec::new(), Vec::new());
    for document in llmd_render::decode(text)? {
        match document {
            Document::Deployment(deployment) => deployments.push(*deployment),
            Document::Path(path) => paths.push(*path),
            Document::Accelerator(accelerator) => accelerators.push(*accelerator),
        }
    }
    let deployment = match deployments.len() {
        1 => deployments.remove(0),
        0 => return Err("no LLMDeployment in it: `llmd up` runs one".to_owned().into()),
        _ => {
            let names: Vec<&str> = deployments
                .iter()
                .filter_map(|one| one.metadata.name.as_deref())
                .collect();
            return Err(format!(
                "{} LLMDeployments in it ({}): `llmd up` runs one, so give each a file",
                names.len(),
                names.join(", ")
            )
            .into());
        }
    };
    let mut notes = Vec::new();
    let options = RenderOptions::default();
    let inputs = Inputs {
        deployment: &deployment,
        paths: &paths,
        accelerators: &accelerators,
        namespace: &options.namespace,
        kept: None,
    };
    let mut validated = llmd_render::validate(inputs)
        .map_err(|errors| InputError(errors.iter().map(ToString::to_string).collect()))?;
    if validated.deployment.is_disaggregated() {
        let message = "spec.pools: roles need a cluster, because no sidecar runs on one machine: use a path \
                       with engines that do all of a request, such as optimized-baseline or simulated";
        return Err(InputError(vec![message.to_owned()]));
    }
    let asked = deployment.spec.router.as_ref();
    let asks_for_proxy = asked.and_then(|router| router.proxy.as_ref()?.kind).is_some();
    let proxy = std::mem::replace(&mut validated.deployment.router.proxy, ValidatedProxy::Builtin);
    let field = match proxy {
        ValidatedProxy::Gateway(_) => Some("spec.router.mode asks for a Gateway"),
        // From the path otherwise: nobody asked.
        ValidatedProxy::Envoy { .. } if asks_for_proxy => Some("spec.router.proxy asks for Envoy"),
        ValidatedProxy::Envoy { .. } | ValidatedProxy::Builtin => None,
    };
    notes.extend(field.map(|field| format!("{field}: on one machine the built-in proxy serves instead")));
    notes.extend(validated.notes);
    let rendered = llmd_render::render(&validated.deployment, &options);
    let mut objects = Objects {
        namespace: validated.deployment.namespace.clone(),
        ..Objects::default()
    };
    for object in rendered.objects {
        match object {
            Object::Deployment(deployment) => objects.deployments.push(*deployment),
            Object::ConfigMap(config_map) => objects.config_maps.push(config_map),
            Object::Service(service) => objects.services.push(*service),
            Object::InferencePool(pool) => {
                objects.pool = Some(Pool {
                    selector: pool.spec.selector.match_labels.clone(),
                    ports: pool
                        .spec
                        .target_ports
                        .iter()
                        .filter_map(|port| u16::try_from(port.number).ok())
                        .collect(),
                });
            }
            Object::ServiceAccount(_)
            | Object::Role(_)
            | Object::RoleBinding(_)
            | Object::NetworkPolicy(_)
            | Object::PodDisruptionBudget(_)
            | Object::ResourceClaimTemplate(_)
            | Object::DisaggregatedSet(_) // refused above: it has roles
            | Object::HTTPRoute(_) => {}
            Object::LeaderWorkerSet(set) => {
                let name = set.metadata.name.unwrap_or_default();
                let message = format!(
                    "{name}: an engine of {} pods needs a cluster: put all of it in one pod by parallelism.dataLocal or pipelineLocal",
                    set.spec.leader_worker_template.size
                );
                return Err(InputError(vec![message]));
            }
        }
    }
    Ok(Service {
        objects,
        model: validated.deployment.model.name().to_owned(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::router_config;

    #[test]
    fn the_built_in_document_runs_two_simulated_engines_behind_the_built_in_proxy() {
        let service = load(&Source::BuiltIn).unwrap();
        assert_eq!(service.notes, [] as [&str; 0]);
        let counts: Vec<(String, i32)> = service
            .objects
            .deployments
            .iter()
            .map(|one| {
                (
                    one.metadata.name.clone().unwrap(),
                    one.spec.as_ref().unwrap().replicas.unwrap_or(1),
                )
            })
            .collect();
        assert_eq!(counts.len(), 2, "{counts:?}");
        assert!(
            counts.contains(&("local-decode".to_owned(), 2)) && counts.contains(&("local-epp".to_owned(), 1))
        );
    }

    #[test]
    fn envoy_is_replaced_and_only_said_when_the_document_asks_for_it() {
        let asked = BUILT_IN.replace("spec:\n", "spec:\n  router: {proxy: {type: Envoy}}\n");
        let service = load(&Source::Text(asked)).unwrap();
        assert!(service.notes[0].contains("built-in proxy"), "{:?}", service.notes);
        assert!(service.objects.deployments.iter().all(|one| {
            let spec = one.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
            spec.containers.len() == 1
        }));
    }

    #[test]
    fn a_gateway_is_replaced_too() {
        let gateway = "spec:\n  router: {mode: Gateway, gateway: {parentRefs: [{name: g}]}}\n";
        let service = load(&Source::Text(BUILT_IN.replace("spec:\n", gateway))).unwrap();
        assert!(
            service.notes[0].contains("spec.router.mode"),
            "{:?}",
            service.notes
        );
        assert_eq!(service.objects.services.len(), 1);
        let ports = service.objects.services[0]
            .spec
            .as_ref()
            .unwrap()
            .ports
            .as_ref()
            .unwrap();
        assert!(ports.iter().any(|port| port.port == 80), "{ports:?}");
    }

    #[test]
    fn mistakes_are_told_by_field() {
        let wrong = BUILT_IN.replace("path: simulated", "path: simulatet");
        let error = load(&Source::Text(wrong)).unwrap_err().to_string();
        assert!(
            error.contains("spec.path") && error.contains("simulated"),
            "{error}"
        );
        let disaggregated = include_str!("../../examples/prefill-decode.yaml").to_owned();
        let error = load(&Source::Text(disaggregated)).unwrap_err().to_string();
        assert!(
            error.contains("spec.pools") && error.contains("need a cluster"),
            "{error}"
        );
        let two = format!(
            "{BUILT_IN}---\n{}",
            BUILT_IN.replace("name: local", "name: other")
        );
        let error = load(&Source::Text(two)).unwrap_err().to_string();
        assert!(error.contains("local, other"), "{error}");
    }

    #[test]
    fn attached_engines_get_a_router_without_pods() {
        let service = router_only(&router_config(&[]), &["m".to_owned()]).unwrap();
        assert_eq!(service.model, "m");
        let engines = service.objects.deployments.iter().filter(|one| {
            one.metadata
                .name
                .as_deref()
                .is_some_and(|name| !name.ends_with("-epp"))
        });
        assert!(
            engines
                .clone()
                .all(|one| one.spec.as_ref().unwrap().replicas == Some(0))
        );
    }
}
