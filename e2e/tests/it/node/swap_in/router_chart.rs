//! Objects as upstream's router charts render them (llm-d-router, `config/charts/routerlib`): standalone with an Envoy
//! beside the picker, and for a gateway with an `InferencePool`.

use llmd_e2e_cluster::Namespace;
use serde_json::{Value, json};

use super::proxy;

/// What the charts choose when the values say nothing else.
const PLUGINS: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
  parameters: {scheme: http, path: /metrics, insecureSkipVerify: true}
- type: core-metrics-extractor
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
";

/// A Helm release of one of the charts.
pub(super) struct Release<'a> {
    name: &'a str,
    namespace: &'a str,
    image: &'a str,
}

impl<'a> Release<'a> {
    pub(super) fn new(name: &'a str, namespace: &'a Namespace, image: &'a str) -> Self {
        Self {
            name,
            namespace: namespace.name(),
            image,
        }
    }

    /// `router.modelServers.matchLabels`.
    pub(super) fn engine_labels() -> Value {
        json!({"app": "vllm-test-model", "llm-d.ai/role": "decode"})
    }

    /// Name of the router objects.
    fn router(&self) -> String {
        format!("{}-epp", self.name)
    }

    /// Chart `llm-d-router-standalone` without an `InferencePool`.
    pub(super) fn standalone(&self) -> Vec<Value> {
        let mut objects = self.rbac(false);
        objects.push(self.plugins());
        objects.push(proxy::config_map("envoy", "127.0.0.1"));
        let mut service = self.service("llm-d-router-standalone");
        if let Some(ports) = service["spec"]["ports"].as_array_mut() {
            ports.push(json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8081}));
        }
        objects.push(service);
        let target = [
            "--endpoint-selector",
            "app=vllm-test-model,llm-d.ai/role=decode",
            "--endpoint-target-ports",
            "8000",
        ];
        let containers = json!([proxy::container(), self.picker(1, &target)]);
        let volumes = json!([proxy::volume("envoy"), self.plugins_volume()]);
        objects.push(self.deployment("llm-d-router-standalone", 1, &containers, &volumes));
        objects
    }

    /// Chart `llm-d-router-gateway`. More than one replica elect a leader.
    pub(super) fn gateway(&self, replicas: u32) -> Vec<Value> {
        let mut objects = self.rbac(replicas > 1);
        objects.push(self.plugins());
        objects.push(self.service("llm-d-router-gateway"));
        objects.push(json!({
            "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": self.name},
            "spec": {
                "targetPorts": [{"number": 8000}],
                "appProtocol": "http",
                "selector": {"matchLabels": Self::engine_labels()},
                "endpointPickerRef": {"name": self.router(), "port": {"number": 9002}, "failureMode": "FailOpen"},
            },
        }));
        let target = [
            "--pool-name",
            self.name,
            "--pool-namespace",
            self.namespace,
            "--pool-group",
            "inference.networking.k8s.io",
        ];
        let containers = json!([self.picker(replicas, &target)]);
        let volumes = json!([self.plugins_volume()]);
        objects.push(self.deployment("llm-d-router-gateway", replicas, &containers, &volumes));
        objects
    }

    fn picker(&self, replicas: u32, target: &[&str]) -> Value {
        let mut args = target.to_vec();
        args.extend([
            "--zap-encoder",
            "json",
            "--config-file",
            "/config/default-plugins.yaml",
        ]);
        if replicas > 1 {
            args.push("--ha-enable-leader-election");
        }
        args.extend(["--grpc-health-port", "9003", "--v=4", "--tracing=false"]);
        let probe = |name: &str| {
            let service = if replicas > 1 { name } else { "inference-extension" };
            json!({"port": 9003, "service": service})
        };
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        json!({
            "name": "epp",
            "image": self.image,
            "args": args,
            // the charts ask for 8 cores and 8 GiB, which values lower on small machines
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "16Gi"}},
            "ports": [
                {"name": "grpc", "containerPort": 9002},
                {"name": "grpc-health", "containerPort": 9003},
                {"name": "metrics", "containerPort": 9090},
            ],
            "livenessProbe": {"grpc": probe("liveness"), "initialDelaySeconds": 5, "periodSeconds": 10},
            "readinessProbe": {"grpc": probe("readiness"), "periodSeconds": 2},
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 5"]}}},
            "env": [
                {"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
                {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            ],
            "volumeMounts": [{"name": "plugins-config-volume", "mountPath": "/config"}],
        })
    }

    fn plugins(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.router()},
            "data": {"default-plugins.yaml": PLUGINS},
        })
    }

    fn plugins_volume(&self) -> Value {
        json!({"name": "plugins-config-volume", "configMap": {"name": self.router()}})
    }

    fn service(&self, mode: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.router()},
            "spec": {
                "type": "ClusterIP",
                "selector": {mode: self.router()},
                "ports": [
                    {"name": "grpc-ext-proc", "protocol": "TCP", "port": 9002, "appProtocol": "kubernetes.io/h2c"},
                    {"name": "http-metrics", "protocol": "TCP", "port": 9090},
                ],
            },
        })
    }

    fn deployment(&self, mode: &str, replicas: u32, containers: &Value, volumes: &Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.router()},
            "spec": {
                "replicas": replicas,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {mode: self.router()}},
                "template": {
                    "metadata": {"labels": {mode: self.router(), "llm-d.ai/igw-mode": mode}},
                    "spec": {
                        "serviceAccountName": self.router(),
                        "terminationGracePeriodSeconds": 130,
                        "containers": containers,
                        "volumes": volumes,
                    },
                },
            },
        })
    }

    fn rbac(&self, elects: bool) -> Vec<Value> {
        let read = json!(["get", "watch", "list"]);
        let rights = json!(["inferenceobjectives", "inferencemodelrewrites"]);
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.router()},
        })];
        objects.extend(self.role(
            "sa",
            &json!([{"apiGroups": [""], "resources": ["pods"], "verbs": read}]),
        ));
        objects.extend(self.role(
            "non-sa",
            &json!([
                {"apiGroups": ["inference.networking.x-k8s.io"], "resources": rights, "verbs": read},
                {"apiGroups": ["llm-d.ai"], "resources": rights, "verbs": read},
                {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": read},
            ]),
        ));
        if elects {
            objects.extend(self.role(
                "leader-election",
                &json!([
                    {
                        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
                    },
                    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
                ]),
            ));
        }
        objects.extend(self.metrics_authentication());
        objects
    }

    fn role(&self, suffix: &str, rules: &Value) -> [Value; 2] {
        let name = format!("{}-{suffix}", self.router());
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        [
            json!({"apiVersion": version, "kind": "Role", "metadata": {"name": name}, "rules": rules}),
            json!({
                "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": name},
                "subjects": [{"kind": "ServiceAccount", "name": self.router(), "namespace": self.namespace}],
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            }),
        ]
    }

    fn metrics_authentication(&self) -> [Value; 2] {
        let name = format!("{}-{}-epp", self.name, self.namespace);
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        [
            json!({
                "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name},
                "rules": [
                    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
                ],
            }),
            json!({
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "subjects": [{"kind": "ServiceAccount", "name": self.router(), "namespace": self.namespace}],
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            }),
        ]
    }
}
