//! From a resource to a [`ValidatedDeployment`], or to all of its mistakes at once.

mod bounds;
mod disaggregation;
mod engine;
mod kv_events;
mod offload;
mod parallelism;
mod picker;
mod pools;
mod quantity;
mod router;
mod sglang;

use llmd_crds::{
    AcceleratorProfile, LLMDeployment, LLMDeploymentSpec, Model, Pool, RolloutStrategy, WellLitPath,
};

use crate::engine_images::EngineImages;
use crate::field_error::{FieldError, Problem};
use crate::merge::overlay;
use crate::validated::{
    ModelSource, PathSource, ResolvedPath, ValidatedDeployment, ValidatedModel, ValidatedPool,
    ValidatedRollout,
};
use crate::{kept_path, paths};

/// What validation may look at.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The resource.
    pub deployment: &'a LLMDeployment,
    /// WellLitPath resources; they override compiled-in ones of their name.
    pub paths: &'a [WellLitPath],
    /// AcceleratorProfile resources.
    pub accelerators: &'a [AcceleratorProfile],
    /// Namespace of a resource that names none.
    pub namespace: &'a str,
    /// The path that was kept for this resource ([`crate::kept_path_name`]). Where it is the wanted version it comes
    /// before all others: an edited path moves nothing until the version moves.
    pub kept: Option<&'a str>,
}

/// A right deployment and what its author may want to know.
#[derive(Clone, Debug)]
pub struct Validated {
    /// What to render.
    pub deployment: ValidatedDeployment,
    /// Advice and warnings, one line each.
    pub notes: Vec<String>,
}

/// Checks everything that can be checked without a cluster.
///
/// # Errors
/// All mistakes that were found; later checks are left out when they would only repeat earlier ones.
pub fn validate(inputs: Inputs<'_>) -> Result<Validated, Vec<FieldError>> {
    let deployment = inputs.deployment;
    let mut errors = bounds::check("spec", &deployment.spec);
    errors.extend(rules(deployment));
    if !errors.is_empty() {
        return Err(errors);
    }
    let spec = &deployment.spec;
    let wanted = (spec.path.as_deref(), spec.path_version.as_deref());
    let kept = match inputs.kept {
        None => None,
        Some(text) => kept_path::wanted(text, wanted.0, wanted.1).map_err(|error| vec![error])?,
    };
    let (path, builtin) = match &kept {
        Some(path) => (path, false),
        None => paths::find(wanted.0, wanted.1, inputs.paths).map_err(|error| vec![error])?,
    };
    if !builtin {
        supplied(path)?;
    }
    let kept_path = match (&kept, inputs.kept) {
        (Some(_), Some(text)) => Some(text.to_owned()),
        _ => (!builtin).then(|| kept_path::text(path)),
    };
    let merged = overlay(&engine::for_type(&path.spec.template, spec), spec).map_err(|error| {
        vec![FieldError::new(
            "spec",
            Problem::Invalid,
            format!("cannot be laid over its path: {error}"),
        )]
    })?;
    let mut resolver = Resolver {
        merged,
        inputs,
        errors: Vec::new(),
        notes: Vec::new(),
    };
    let resolved = ResolvedPath {
        name: paths::name(path).to_owned(),
        version: path.spec.version.clone(),
        source: if builtin {
            PathSource::Builtin
        } else {
            PathSource::Resource
        },
    };
    if spec.path_version.is_none() {
        resolver.notes.push(format!(
            "path {} is used in version {}; to pin it, add `pathVersion: {}` to spec",
            resolved.name, resolved.version, resolved.version
        ));
    }
    let field = format!("WellLitPath {}: spec.images", resolved.name);
    let images = EngineImages::find(path.spec.images.as_deref(), &field).map_err(|error| vec![error])?;
    let mut validated = resolver.resolve(resolved, images);
    validated.kept_path = kept_path;
    let Resolver {
        mut errors, notes, ..
    } = resolver;
    // what all pools share is wrong in each of them
    errors.dedup();
    if errors.is_empty() {
        Ok(Validated {
            deployment: validated,
            notes,
        })
    } else {
        Err(errors)
    }
}

/// A path that somebody wrote may be wrong too; without an API server nobody has looked at it yet.
fn supplied(path: &WellLitPath) -> Result<(), Vec<FieldError>> {
    let place = format!("WellLitPath {}", paths::name(path));
    let mut errors = bounds::check(&format!("{place}: spec.template"), &path.spec.template);
    if let Err(violations) = path.validate_cel() {
        errors.extend(violations.iter().map(|violation| {
            let field = format!("{place}: {}", violation.field_path.trim_start_matches('.'));
            FieldError::new(
                field,
                problem(violation.reason.as_deref()),
                violation.message.clone(),
            )
        }));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn problem(reason: Option<&str>) -> Problem {
    match reason {
        Some("FieldValueRequired") => Problem::Required,
        Some("FieldValueForbidden") => Problem::Forbidden,
        _ => Problem::Invalid,
    }
}

/// The CEL rules of the schema, evaluated as the API server does.
fn rules(deployment: &LLMDeployment) -> Vec<FieldError> {
    llmd_crds::broken_rules(deployment)
        .iter()
        .map(|violation| {
            let field = violation.field_path.trim_start_matches('.');
            let field = if field.is_empty() { "metadata.name" } else { field };
            FieldError::new(
                field,
                problem(violation.reason.as_deref()),
                violation.message.clone(),
            )
        })
        .collect()
}

struct Resolver<'a> {
    merged: LLMDeploymentSpec,
    inputs: Inputs<'a>,
    errors: Vec<FieldError>,
    notes: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// The author's own pool of that name and its place; a pool that only the path has is none.
    fn own_pool(&self, name: &str) -> Option<(usize, &'a Pool)> {
        let deployment: &'a LLMDeployment = self.inputs.deployment;
        let pools = deployment.spec.pools.as_deref().unwrap_or_default();
        pools.iter().enumerate().find(|(_, pool)| pool.name == name)
    }
}

impl Resolver<'_> {
    fn resolve(&mut self, path: ResolvedPath, images: &'static EngineImages) -> ValidatedDeployment {
        let metadata = &self.inputs.deployment.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        if !is_dns_label(&name) {
            let message = "must be a DNS label: lower-case letters, digits and '-', beginning with a letter";
            self.errors
                .push(FieldError::new("metadata.name", Problem::Invalid, message).value(&name));
        }
        let namespace = metadata
            .namespace
            .clone()
            .unwrap_or_else(|| self.inputs.namespace.to_owned());
        let merged = self.merged.clone();
        let model = self.model(&merged.model.clone().unwrap_or_default());
        let pools = self.pools(&merged, &name, &model);
        let kv = self.kv(&merged, &pools);
        self.sglang(&model, &pools, &kv);
        self.kv_events(&model, &pools);
        self.picker(&merged, &model, &pools, &kv);
        let security = merged.security.clone().unwrap_or_default();
        let common = merged.common_metadata.clone().unwrap_or_default();
        ValidatedDeployment {
            namespace,
            path,
            kept_path: None,
            images,
            kv,
            router: router::resolve(&merged, &mut self.errors, &mut self.notes),
            pod_security: security.pod_security.unwrap_or_default(),
            image_pull_secrets: security.image_pull_secrets.unwrap_or_default(),
            rollout: self.rollout(&merged, &pools),
            labels: common.labels.unwrap_or_default(),
            annotations: common.annotations.unwrap_or_default(),
            name,
            model,
            pools,
        }
    }

    fn model(&mut self, model: &Model) -> ValidatedModel {
        let source = match model.uri.as_deref().and_then(|uri| uri.split_once("://")) {
            Some(("hf", id)) => ModelSource::Hub {
                id: id.to_owned(),
                revision: model.revision.clone(),
            },
            Some((_, rest)) => {
                let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
                if path
                    .split('/')
                    .any(|segment| segment == ".." || segment.is_empty())
                {
                    let message = "the path in the claim must not be empty or contain '..' or '//'";
                    self.errors
                        .push(FieldError::new("spec.model.uri", Problem::Invalid, message).value(rest));
                }
                ModelSource::Claim {
                    claim: claim.to_owned(),
                    path: path.to_owned(),
                }
            }
            None => ModelSource::Nothing,
        };
        let name = model.name.clone().unwrap_or_else(|| match &source {
            ModelSource::Hub { id, .. } => id.clone(),
            ModelSource::Claim { path, .. } => path.rsplit('/').next().unwrap_or_default().to_owned(),
            ModelSource::Nothing => String::new(),
        });
        let token = model.token_secret_ref.as_ref().map(|secret| {
            (
                secret.name.clone(),
                secret.key.clone().unwrap_or_else(|| "HF_TOKEN".to_owned()),
            )
        });
        ValidatedModel {
            served_names: std::iter::once(name)
                .chain(model.aliases.clone().unwrap_or_default())
                .collect(),
            source,
            token,
            trust_remote_code: model.trust_remote_code.unwrap_or(false),
            downloads: model
                .storage
                .as_ref()
                .map(|storage| (storage.claim_name.clone(), storage.read_only.unwrap_or(false))),
        }
    }

    fn rollout(&mut self, merged: &LLMDeploymentSpec, pools: &[ValidatedPool]) -> ValidatedRollout {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        let rollout = merged.rollout.clone().unwrap_or_default();
        let drain = rollout.drain.unwrap_or_else(|| "45s".to_owned());
        let strategy = rollout.strategy.unwrap_or_default();
        if strategy != RolloutStrategy::RollingUpdate
            && pools.iter().all(|pool| pool.role == llmd_crds::Role::Both)
        {
            let message = "pools whose engines do all of a request need not move together: leave it out, or give pools roles";
            self.errors.push(
                FieldError::new("spec.rollout.strategy", Problem::Forbidden, message).value("Coherent"),
            );
        }
        ValidatedRollout {
            strategy,
            max_surge: rollout.max_surge.unwrap_or(IntOrString::Int(0)),
            max_unavailable: rollout.max_unavailable.unwrap_or(IntOrString::Int(1)),
            drain_seconds: i64::from(engine::seconds("spec.rollout.drain", &drain, &mut self.errors)),
        }
    }
}

fn is_dns_label(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}
