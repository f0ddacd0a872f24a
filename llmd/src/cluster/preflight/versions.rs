//! Kubernetes' version, the definitions that are used, and an operator that looks.

use llmd_render::Object;

use super::super::diff::serves;
use super::super::installation::Installation;
use super::super::{Session, api_failure};
use super::{Check, Verdict};
use crate::exit::Failure;

/// Oldest supported minor version of Kubernetes 1.
const OLDEST: u32 = 30;

pub(super) async fn check(session: &Session, objects: &[Object]) -> Result<Vec<Check>, Failure> {
    let version = session
        .client
        .apiserver_version()
        .await
        .map_err(|error| api_failure("cannot reach the API server", &error))?;
    let minor: u32 = version
        .minor
        .trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap_or(0);
    let mut checks = vec![if minor >= OLDEST {
        Check::ok("kubernetes", version.git_version)
    } else {
        Check::new(
            "kubernetes",
            Verdict::Failed,
            version.git_version,
            format!("upgrade to 1.{OLDEST} or newer"),
        )
    }];
    checks.push(
        if serves(session, llmd_crds::GROUP, llmd_crds::VERSION, "LLMDeployment").await? {
            Check::ok(
                "definitions",
                format!("{}/{} is served", llmd_crds::GROUP, llmd_crds::VERSION),
            )
        } else {
            Check::new(
                "definitions",
                Verdict::Failed,
                format!("{}/{} is not served", llmd_crds::GROUP, llmd_crds::VERSION),
                "llmd crds apply, or install the chart",
            )
        },
    );
    let wants_gateway = objects.iter().any(|object| object.kind() == "HTTPRoute");
    let has_pool = serves(session, "inference.networking.k8s.io", "v1", "InferencePool").await?;
    checks.push(match (has_pool, wants_gateway) {
        (true, _) => Check::ok("inference pool", "InferencePool v1 is served"),
        (false, false) => Check::ok(
            "inference pool",
            "InferencePool is not served; the router selects pods by label, which is enough without a gateway",
        ),
        (false, true) => Check::new(
            "inference pool",
            Verdict::Failed,
            "the deployment asks for a gateway, but InferencePool v1 is not served",
            "llmd crds apply --with gaie, or set router.mode to Standalone",
        ),
    });
    if wants_gateway && !serves(session, "gateway.networking.k8s.io", "v1", "HTTPRoute").await? {
        checks.push(Check::new(
            "gateway",
            Verdict::Failed,
            "the deployment asks for a gateway, but HTTPRoute v1 is not served",
            "install a gateway with its Gateway API definitions, or set router.mode to Standalone",
        ));
    }
    checks.push(match Installation::find(session).await {
        Some(found) if found.ready > 0 => Check::ok(
            "operator",
            format!("{} in namespace {}", found.image, found.namespace),
        ),
        Some(found) => Check::new(
            "operator",
            Verdict::Failed,
            format!("{}/{} has no ready replica", found.namespace, found.name),
            format!(
                "kubectl describe deployment {} -n {}",
                found.name, found.namespace
            ),
        ),
        None => Check::new(
            "operator",
            Verdict::Warning,
            format!("none seen that watches namespace {}", session.namespace),
            "helm install llmd charts/llmd --namespace llmd-system --create-namespace",
        ),
    });
    Ok(checks)
}
