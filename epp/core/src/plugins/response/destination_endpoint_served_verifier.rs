//! `destination-endpoint-served-verifier`: tells the client which endpoint served it, for conformance tests.
//!
//! No parameters. The response header `x-conformance-test-served-endpoint` holds what the proxy says in its metadata
//! (`envoy.lb`, `x-gateway-destination-endpoint-served`), or that it says nothing.

use std::sync::Arc;

use llmd_epp_api::plugin::{PreRequest, SchedulingResult};
use llmd_epp_api::{
    Cycle, Plugin, PluginType, Rejection, RequestChanges, ResponseHead, ResponseHook, Stability,
};

/// Type name in configurations.
pub const TYPE: &str = "destination-endpoint-served-verifier";

/// The registry line.
pub const PLUGIN: PluginType = PluginType {
    name: TYPE,
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |context| {
        context.no_parameters()?;
        Ok(Plugin {
            pre_request: Some(Arc::new(Verifier)),
            ..Plugin::default()
        })
    },
};

const RESULT: &str = "x-conformance-test-served-endpoint";
/// Upstream's text for a proxy that sends no such metadata.
const MISSING: &str = "fail: missing envoy lb metadata";

struct Verifier;

impl PreRequest for Verifier {
    fn pre_request(
        &self,
        _: &Cycle<'_>,
        _: SchedulingResult<'_>,
        changes: &mut RequestChanges,
    ) -> Result<(), Rejection> {
        changes.hooks.push(Box::new(Stamp));
        Ok(())
    }
}

#[derive(Debug)]
struct Stamp;

impl ResponseHook for Stamp {
    fn on_headers(&mut self, head: &ResponseHead<'_>, set: &mut Vec<(Arc<str>, String)>) {
        set.push((RESULT.into(), head.served.unwrap_or(MISSING).to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{Pool, build, build_error, changes};

    fn stamped(served: Option<&str>) -> Vec<(Arc<str>, String)> {
        let plugin = build(&PLUGIN, Value::Null);
        let mut changes = changes(&plugin, &Pool::of(1), &[("default", &[0])], 0);
        let head = ResponseHead {
            served,
            ..ResponseHead::new(200, None)
        };
        let mut set = Vec::new();
        changes.hooks[0].on_headers(&head, &mut set);
        set
    }

    #[test]
    fn the_response_names_the_endpoint_that_the_proxy_names() {
        assert_eq!(
            stamped(Some("10.0.0.0:8000")),
            [(RESULT.into(), "10.0.0.0:8000".to_owned())]
        );
        assert_eq!(stamped(None), [(RESULT.into(), MISSING.to_owned())]);
        assert!(build_error(&PLUGIN, json!({"a": 1})).contains("unknown field"));
    }
}
