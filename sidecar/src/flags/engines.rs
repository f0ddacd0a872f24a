//! The flags about engines of other pods: who may be named, and who speaks TLS.

use llmd_process::pflag::Flags;

use super::connector::list;
use super::{OptionError, value};
use crate::allowed::Pool;

/// How one kind of engine is spoken with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) is_on: bool,
    /// Its certificate is not checked.
    pub(crate) takes_any: bool,
}

/// TLS by kind of engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineTls {
    pub(crate) prefiller: Tls,
    pub(crate) decoder: Tls,
    pub(crate) encoder: Tls,
}

impl EngineTls {
    pub(super) fn read(flags: &Flags) -> Result<Self, OptionError> {
        let mut all = Self::default();
        for (flag, set) in [
            ("enable-tls", (|tls| tls.is_on = true) as fn(&mut Tls)),
            ("tls-insecure-skip-verify", |tls| tls.takes_any = true),
        ] {
            for stage in list(&flags.string(flag)) {
                match stage.as_str() {
                    "prefiller" => set(&mut all.prefiller),
                    "decoder" => set(&mut all.decoder),
                    "encoder" => set(&mut all.encoder),
                    other => return Err(value(flag, other, "use prefiller, decoder and encoder")),
                }
            }
        }
        Ok(all)
    }
}

/// The pool whose pods may be named; `None` without SSRF protection.
pub(super) fn pool(
    flags: &Flags,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Option<Pool>, OptionError> {
    if !flags.bool("enable-ssrf-protection") {
        return Ok(None);
    }
    let given = Some(flags.string("inference-pool")).filter(|pool| !pool.is_empty());
    let Some(pool) = given.or_else(|| env("INFERENCE_POOL").filter(|pool| !pool.is_empty())) else {
        let fix = "--enable-ssrf-protection needs it, as namespace/name (or the variable INFERENCE_POOL)";
        return Err(value("inference-pool", "", fix));
    };
    let (namespace, name) = pool.split_once('/').unwrap_or(("default", &pool));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(value("inference-pool", &pool, "use namespace/name"));
    }
    let group = flags.string("pool-group");
    let version = match group.as_str() {
        "inference.networking.k8s.io" => "v1",
        "inference.networking.x-k8s.io" => "v1alpha2",
        other => {
            let fix = "use inference.networking.k8s.io or inference.networking.x-k8s.io";
            return Err(value("pool-group", other, fix));
        }
    };
    Ok(Some(Pool {
        group,
        version,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }))
}
