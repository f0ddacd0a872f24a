//! Objects as KServe makes them of an `LLMInferenceService` with a scheduler (kserve of August 2026,
//! `config/llmisvcconfig/config-llm-scheduler.yaml` and `pkg/controller/v1alpha2/llmisvc/scheduler.go`).

use serde_json::{Value, json};

/// KServe's configuration for a pool of one kind of engines; it is given as an argument.
const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: single-profile-handler
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: no-hit-lru-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: no-hit-lru-scorer, weight: 2}
  - pluginRef: max-score-picker
";

/// An `LLMInferenceService`.
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) image: &'a str,
    /// KServe's `EnableTLS`: a certificate in a Secret, mounted.
    pub(super) tls: bool,
}

impl Service<'_> {
    /// Labels of the engines, which the pool selects by.
    pub(super) fn engine_labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/part-of": "llminferenceservice",
            "kserve.io/component": "workload",
        })
    }

    fn labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/part-of": "llminferenceservice",
            "app.kubernetes.io/component": "llminferenceservice-router-scheduler",
        })
    }

    /// The name of something that belongs to it.
    fn child(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    pub(super) fn objects(&self) -> Vec<Value> {
        let mut objects = self.rbac();
        let port = |name: &str, number: u16| json!({"name": name, "port": number, "targetPort": name, "protocol": "TCP"});
        objects.extend([
            self.certificates(),
            json!({
                "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
                "metadata": {"name": self.child("inference-pool"), "labels": self.labels()},
                "spec": {
                    "endpointPickerRef": {
                        "failureMode": "FailOpen", "kind": "Service", "name": self.child("epp-service"),
                        "port": {"number": 9002},
                    },
                    "selector": {"matchLabels": self.engine_labels()},
                    "targetPorts": [{"number": 8000}],
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": self.child("epp-service"), "labels": self.labels()},
                "spec": {
                    "selector": self.labels(),
                    "ports": [port("grpc", 9002), port("grpc-health", 9003), port("metrics", 9090), port("zmq", 5557)],
                },
            }),
            self.deployment(),
        ]);
        objects
    }

    /// KServe's template leaves an empty word where a flag depends on `EnableTLS`; without it the picker signs for itself.
    fn command(&self) -> Vec<String> {
        let pool = self.child("inference-pool");
        let mut command: Vec<String> = [
            "/app/epp",
            "--pool-name",
            &pool,
            "--pool-namespace",
            self.namespace,
            "--zap-encoder",
            "json",
            "--grpc-port",
            "9002",
            "--grpc-health-port",
            "9003",
        ]
        .map(str::to_owned)
        .into();
        let flags = [
            "--enable-cert-reload=true",
            "--secure-serving=true",
            "--cert-path=/var/run/kserve/tls",
        ];
        if self.tls {
            command.extend(flags.map(str::to_owned));
        } else {
            command.extend(flags.map(|_| String::new()));
        }
        command
    }

    fn deployment(&self) -> Value {
        let probe = |name: &str, delay: u32| {
            json!({
                "grpc": {"port": 9003, "service": name},
                "failureThreshold": 3, "initialDelaySeconds": delay, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1,
            })
        };
        let port =
            |name: &str, number: u16| json!({"name": name, "containerPort": number, "protocol": "TCP"});
        let directories =
            "/var/run/kserve/tls:/var/run/secrets/kubernetes.io/serviceaccount:/etc/pki/tls/certs";
        let container = json!({
            "name": "main",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": self.command(),
            "args": ["--config-text", CONFIG],
            "env": [{"name": "SSL_CERT_DIR", "value": directories}],
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sleep", "15"]}}},
            "ports": [port("grpc", 9002), port("grpc-health", 9003), port("metrics", 9090), port("zmq", 5557)],
            "livenessProbe": probe("liveness", 5),
            "readinessProbe": probe("readiness", 30),
            // KServe asks for one core and 2 GiB, which services lower on small machines
            "resources": {"limits": {"cpu": 6, "memory": "16Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": "tls-certs", "mountPath": "/var/run/kserve/tls", "readOnly": true}],
        });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.child("kserve-router-scheduler"), "labels": self.labels()},
            "spec": {
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": self.labels()},
                "template": {
                    "metadata": {"labels": self.labels(), "annotations": {"app.kubernetes.io/version": "0.10.0"}},
                    "spec": {
                        "serviceAccountName": self.child("epp-sa"),
                        "containers": [container],
                        "volumes": [{"name": "tls-certs", "secret": {"secretName": self.child("kserve-self-signed-certs")}}],
                        "dnsPolicy": "ClusterFirst",
                        "restartPolicy": "Always",
                        "terminationGracePeriodSeconds": 60,
                    },
                },
            },
        })
    }

    fn certificates(&self) -> Value {
        let host = format!(
            "{}.{}.svc.cluster.local",
            self.child("epp-service"),
            self.namespace
        );
        let made = rcgen::generate_simple_self_signed([host]).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": self.child("kserve-self-signed-certs")},
            "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
        })
    }

    fn rbac(&self) -> Vec<Value> {
        let read = json!(["get", "list", "watch"]);
        let (account, role) = (self.child("epp-sa"), self.child("epp-role"));
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        let (v1, alpha) = ("inference.networking.k8s.io", "inference.networking.x-k8s.io");
        let subject = json!([{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}]);
        let delegator = format!("{}-{}-epp-auth-rb", self.namespace, self.name);
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}),
            json!({
                "apiVersion": version, "kind": "Role", "metadata": {"name": role},
                "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": read},
                    {"apiGroups": [v1, alpha], "resources": ["inferencepools", "inferenceobjectives", "inferencemodels"], "verbs": read},
                    {"apiGroups": [alpha], "resources": ["inferencemodelrewrites", "inferencepoolimports"], "verbs": read},
                    {"apiGroups": ["llm-d.ai"], "resources": ["inferenceobjectives", "inferencemodelrewrites"], "verbs": read},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
                    {
                        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
                    },
                ],
            }),
            json!({
                "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": self.child("epp-rb")},
                "subjects": subject, "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
            }),
            json!({
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": delegator},
                "subjects": subject,
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator"},
            }),
        ]
    }
}
