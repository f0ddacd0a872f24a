//! The engine of one pool: the deployment's, with the pool's laid over it.

use std::time::Duration;

use llmd_crds::{Engine, EngineType, LLMDeploymentSpec};

use crate::field_error::{FieldError, Problem};
use crate::merge::overlay_option;
use crate::validated::ValidatedEngine;

/// Shell-safe environment names (POSIX, 8.1), which is what every container runtime takes.
fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Flags that are rendered from other fields, beside those of `data-parallel-` and `disaggregation-`; `args` refuses them by a rule of the
/// schema, which cannot look into texts of any length.
const OWNED: [&str; 28] = [
    "model",
    "model-path",
    "pipeline-parallel-size",
    "pp",
    "pp-size",
    "tp-size",
    "dp-size",
    "ep-size",
    "nnodes",
    "node-rank",
    "master-addr",
    "dist-init-addr",
    "headless",
    "page-size",
    "enable-hierarchical-cache",
    "hicache-size",
    "host",
    "port",
    "served-model-name",
    "tensor-parallel-size",
    "tp",
    "block-size",
    "kv-transfer-config",
    "ec-transfer-config",
    "enable-expert-parallel",
    "revision",
    "trust-remote-code",
    "shutdown-timeout",
];

/// Whether an argument sets a flag that the operator sets; vLLM reads underscores as dashes.
fn is_owned(argument: &str) -> bool {
    let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
        return false;
    };
    let name = flag.split('=').next().unwrap_or(flag).replace('_', "-");
    OWNED.contains(&name.as_str())
        || name.starts_with("data-parallel-")
        || name.starts_with("disaggregation-")
}

/// A path's template for the engine that a deployment names: flags, variables and images are of one type of engine, so
/// those for another are left out.
pub(crate) fn for_type(template: &LLMDeploymentSpec, own: &LLMDeploymentSpec) -> LLMDeploymentSpec {
    let mut template = template.clone();
    let wanted = own.engine.as_ref().and_then(|engine| engine.kind);
    let is = template.engine.as_ref().and_then(|engine| engine.kind);
    if wanted.is_none() || wanted == is {
        return template;
    }
    let pools = template.pools.iter_mut().flatten();
    let engines = pools.filter_map(|pool| pool.engine.as_mut());
    for engine in template.engine.iter_mut().chain(engines) {
        *engine = Engine {
            kind: engine.kind,
            image_pull_policy: engine.image_pull_policy,
            startup_timeout: engine.startup_timeout.take(),
            ..Engine::default()
        };
    }
    template
}

/// The engine of all pools without what is of another type than a pool's own.
fn without_others(base: &Engine, own: Option<EngineType>) -> Engine {
    if own.is_none() || own == base.kind {
        return base.clone();
    }
    Engine {
        image_pull_policy: base.image_pull_policy,
        startup_timeout: base.startup_timeout.clone(),
        ..Engine::default()
    }
}

pub(crate) fn resolve(
    base: Option<&Engine>,
    over: Option<&Engine>,
    own: Option<&Engine>,
    pool: &str,
    errors: &mut Vec<FieldError>,
) -> ValidatedEngine {
    // a value is named where its author wrote it: in the pool, else for all pools
    let field = |name: &str, in_pool: fn(&Engine) -> bool| {
        if own.is_some_and(in_pool) {
            format!("{pool}.engine.{name}")
        } else {
            format!("spec.engine.{name}")
        }
    };
    let base = base.map(|base| without_others(base, over.and_then(|over| over.kind)));
    let engine = match overlay_option(base.as_ref(), over) {
        Ok(engine) => engine.unwrap_or_default(),
        Err(error) => {
            errors.push(FieldError::new(
                format!("{pool}.engine"),
                Problem::Invalid,
                error.to_string(),
            ));
            Engine::default()
        }
    };
    let mut args = engine.args.unwrap_or_default();
    for name in engine.remove_args.iter().flatten() {
        if args.remove(name).is_none() {
            let message = "no such flag is set, so there is nothing to remove";
            let field = field("removeArgs", |engine| engine.remove_args.is_some());
            let error = FieldError::new(field, Problem::NotFound, message);
            errors.push(error.value(name).nearest(name, args.keys().map(String::as_str)));
        }
    }
    for argument in engine.extra_args.iter().flatten() {
        if is_owned(argument) {
            let message = "this flag is set by the operator; use the field of the resource instead (model, parallelism, kv, \
                           rollout)";
            let field = field("extraArgs", |engine| engine.extra_args.is_some());
            errors.push(FieldError::new(field, Problem::Forbidden, message).value(argument));
        }
    }
    let env = engine.env.unwrap_or_default();
    for variable in env.iter().filter(|variable| !is_env_name(&variable.name)) {
        let message = "is no name of an environment variable";
        let field = field("env", |engine| engine.env.is_some());
        errors.push(FieldError::new(field, Problem::Invalid, message).value(&variable.name));
    }
    let timeout = engine.startup_timeout.unwrap_or_else(|| "1h".to_owned());
    ValidatedEngine {
        kind: engine.kind.unwrap_or(EngineType::Vllm),
        image: engine.image,
        image_pull_policy: engine.image_pull_policy,
        args,
        extra_args: engine.extra_args.unwrap_or_default(),
        env,
        startup_seconds: seconds(
            &field("startupTimeout", |engine| engine.startup_timeout.is_some()),
            &timeout,
            errors,
        ),
    }
}

/// A Go duration of at least a second and at most a day, in whole seconds.
pub(crate) fn seconds(field: &str, text: &str, errors: &mut Vec<FieldError>) -> i32 {
    const DAY: Duration = Duration::from_secs(86_400);
    match llmd_epp_core::config::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) && duration <= DAY => duration.as_secs() as i32,
        Ok(_) => {
            let message = "must be from 1s to 24h";
            errors.push(FieldError::new(field, Problem::Invalid, message).value(text));
            1
        }
        Err(error) => {
            errors.push(
                FieldError::new(field, Problem::Invalid, format!("{error}; write 90s, 5m or 1h")).value(text),
            );
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_owned;

    #[test]
    fn flags_of_the_operator_are_known_in_every_spelling() {
        for argument in [
            "--port",
            "--port=1",
            "--served_model_name=x",
            "-tp",
            "-tp=2",
            "--data-parallel-size",
        ] {
            assert!(is_owned(argument), "{argument}");
        }
        for argument in [
            "port",
            "8000",
            "--port-range",
            "--max-model-len=4",
            "--models",
            "-",
            "",
        ] {
            assert!(!is_owned(argument), "{argument}");
        }
    }
}
