//! Two simulated engines behind labels of somebody else.

use llmd_e2e_cluster::Images;
use serde_json::{Value, json};

/// A Deployment of two pods that serve `test/model` on port 8000.
pub(super) fn objects(images: &Images, labels: &Value) -> Vec<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let container = json!({
        "name": "main",
        "image": images.reference("llmd"),
        "args": ["sim", "--model=test/model", "--host=0.0.0.0", "--port=8000"],
        "env": [
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
            {"name": "POD_IP", "valueFrom": field("status.podIP")},
        ],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/v1/models", "port": 8000}, "periodSeconds": 1},
    });
    vec![json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "engines"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })]
}
