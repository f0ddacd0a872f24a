//! Rendered objects by hand, a machine whose llmd is a script, and polling.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use llmd_local::cluster::{Cluster, PodStatus};
use llmd_local::endpoints::EndpointsFile;
use llmd_local::events::{Event, Events};
use llmd_local::gpus::Gpus;
use llmd_local::translate::plan::{Objects, Plan, Pool, RouterSettings};
use llmd_local::translate::pod::Machine;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What a test asks of the engines.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) replicas: usize,
    pub(crate) args: Vec<String>,
    pub(crate) gpus: usize,
    pub(crate) grace: u64,
}

impl Default for Engines {
    fn default() -> Self {
        Self {
            replicas: 2,
            args: Vec::new(),
            gpus: 0,
            grace: 5,
        }
    }
}

impl Engines {
    pub(crate) fn with(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn objects(&self) -> Objects {
        let args: Vec<String> = ["sim", "--port=8000"]
            .iter()
            .map(ToString::to_string)
            .chain(self.args.iter().cloned())
            .collect();
        let resources = match self.gpus {
            0 => serde_json::json!({}),
            count => serde_json::json!({"limits": {"nvidia.com/gpu": count.to_string()}}),
        };
        let engine = serde_json::json!({
            "metadata": {"name": "x-decode"},
            "spec": {
                "replicas": self.replicas,
                "selector": {},
                "template": {
                    "metadata": {"labels": {"llmd.dev/pool": "decode", "llm-d.ai/role": "decode"}},
                    "spec": {
                        "terminationGracePeriodSeconds": self.grace,
                        "containers": [{
                            "name": "modelserver",
                            "image": "ghcr.io/x/llmd:v1",
                            "args": args,
                            "env": [
                                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {"name": "SELF", "value": "http://$(POD_IP):8000"},
                                {"name": "CACHE", "value": "/cache/models"},
                            ],
                            "ports": [{"name": "modelserver", "containerPort": 8000}],
                            "resources": resources,
                            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                            "startupProbe": {"httpGet": {"path": "/env", "port": "modelserver"}, "periodSeconds": 5},
                            "readinessProbe": {"httpGet": {"path": "/v1/models", "port": 8000}, "periodSeconds": 1},
                        }],
                        "volumes": [{"name": "cache", "emptyDir": {}}],
                    },
                },
            },
        });
        let router = serde_json::json!({
            "metadata": {"name": "x-epp"},
            "spec": {
                "replicas": 1,
                "selector": {},
                "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/component": "epp"}},
                    "spec": {
                        "containers": [{
                            "name": "epp",
                            "image": "ghcr.io/x/llmd-epp:v1",
                            "args": ["epp", "--config-file=/config/plugins.yaml",
                                     "--endpoint-selector=llmd.dev/pool=decode", "--endpoint-target-ports=8000"],
                            "ports": [{"containerPort": 9090}, {"containerPort": 8081}],
                            "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9090}},
                        }],
                        "volumes": [{"name": "config", "configMap": {"name": "x-epp"}}],
                    },
                },
            },
        });
        let config = serde_json::json!({
            "metadata": {"name": "x-epp"},
            "data": {"plugins.yaml": "plugins:\n- type: queue-scorer\n"},
        });
        Objects {
            namespace: "default".into(),
            deployments: vec![
                serde_json::from_value(router).unwrap(),
                serde_json::from_value(engine).unwrap(),
            ],
            config_maps: vec![serde_json::from_value(config).unwrap()],
            services: vec![],
            pool: Some(Pool::default()),
        }
    }
}

/// A running cluster in a directory of its own. Dropping it kills every process by dropping its handles.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) dir: tempfile::TempDir,
    settings: RouterSettings,
    stop: CancellationToken,
}

pub(crate) fn fake_llmd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_llmd.py")
}

impl Run {
    pub(crate) fn start(engines: &Engines, gpus: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // executable whatever the checkout made of the file's mode
        let executable = dir.path().join("llmd");
        std::fs::copy(fake_llmd(), &executable).unwrap();
        std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = RouterSettings {
            endpoints_file: dir.path().join("endpoints.yaml"),
            bind: "127.0.0.1".parse().unwrap(),
            port: 1,
            api_key_file: None,
        };
        let machine = Machine {
            executable,
            dir: dir.path().to_owned(),
            env: std::env::vars().collect::<BTreeMap<_, _>>(),
            claims: BTreeMap::new(),
        };
        let (events, received) = Events::channel();
        let file = EndpointsFile::new(settings.endpoints_file.clone());
        let cluster = Cluster::new(machine, Gpus::with_devices(gpus), file, Vec::new(), events);
        let stop = CancellationToken::new();
        let run = Self {
            cluster,
            events: received,
            dir,
            settings,
            stop,
        };
        run.apply(engines).unwrap();
        let (keeper, stop) = (run.cluster.clone(), run.stop.clone());
        tokio::spawn(async move { keeper.run(&stop).await });
        run
    }

    pub(crate) fn apply(&self, engines: &Engines) -> Result<(), llmd_local::error::LocalError> {
        self.cluster
            .apply(Plan::build(&engines.objects(), &self.settings)?)
    }

    /// Names and ports in the endpoints file.
    pub(crate) fn endpoints(&self) -> Vec<(String, u16)> {
        let text = std::fs::read_to_string(&self.settings.endpoints_file).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entries = file["endpoints"].as_array().unwrap();
        let entry = |e: &serde_json::Value| {
            (
                e["name"].as_str().unwrap().to_owned(),
                e["port"].as_str().unwrap().parse().unwrap(),
            )
        };
        entries.iter().map(entry).collect()
    }

    pub(crate) fn pod(&self, name: &str) -> Option<PodStatus> {
        self.cluster.pods().into_iter().find(|pod| pod.name == name)
    }

    pub(crate) async fn endpoints_named(&self, names: &[&str]) -> Vec<(String, u16)> {
        poll("the endpoints file", || {
            let found = self.endpoints();
            let same = found
                .iter()
                .map(|(name, _)| name.as_str())
                .eq(names.iter().copied());
            same.then_some(found)
        })
        .await
    }

    /// Asks an engine for its arguments and environment.
    pub(crate) async fn ask(port: u16) -> serde_json::Value {
        let prober = llmd_local::probe::Prober::default();
        let (status, body) = prober
            .get(&format!("http://127.0.0.1:{port}/env"), DEADLINE)
            .await
            .unwrap();
        assert_eq!(status, 200);
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        self.cluster.shut_down(&CancellationToken::new()).await;
    }
}

pub(crate) async fn poll<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // a zombie is dead for this question; tokio reaps it soon
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}
