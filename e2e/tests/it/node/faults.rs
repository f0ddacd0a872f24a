//! What goes wrong on real nodes is named in one line with its fix, is gone after the fix, and no word of an engine's
//! log gets anywhere.

mod phases;
mod site;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use site::{CANARY, Site, cluster, pool};

/// A fault from its cause to its end.
struct Fault {
    /// Reason and part of the message.
    named: (&'static str, &'static str),
    /// What makes it so before the deployment is there.
    before: Option<String>,
    /// What is wrong with the spec.
    wrong: Value,
    fix: Fix,
}

enum Fix {
    /// The right spec.
    Spec(Value),
    /// Something beside it.
    Objects(String),
    Command(&'static [&'static str]),
}

fn spec(named: (&'static str, &'static str), wrong: Value) -> Fault {
    Fault {
        named,
        before: None,
        wrong,
        fix: Fix::Spec(json!({})),
    }
}

/// An engine that ends by itself.
fn engine(named: (&'static str, &'static str), fault: &str) -> Fault {
    spec(
        named,
        json!({"engine": {"env": [{"name": "FAULT", "value": fault}]}}),
    )
}

/// Of pods and what they need.
fn of_pods() -> Vec<Fault> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": "weights",
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "weights"},
        "spec": {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "storageClassName": "",
            "hostPath": {"path": "/tmp"}},
    });
    let token = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"},
        "stringData": {"HF_TOKEN": format!("{CANARY}OfTheSecret")}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"requests.memory": "40Mi"}}});
    let plugins = json!({"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
        "plugins": [{"type": "queue-scoorer"}],
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scoorer"}]}]});
    let gpus = json!({"accelerator": {"vendor": "Nvidia"}, "parallelism": {"tensor": 16}});
    let little = json!({"resources": {"limits": {"memory": "100Mi"}}});
    let memory = json!({"env": [{"name": "FAULT", "value": "memory"}]});
    vec![
        spec(
            ("Unschedulable", "not enough nvidia.com/gpu"),
            json!({"pools": [pool(&gpus)]}),
        ),
        spec(
            ("ImagePullFailed", "e2e.local/none:1 cannot be pulled"),
            json!({"engine": {"image": "e2e.local/none:1"}}),
        ),
        Fault {
            fix: Fix::Spec(json!({"engine": memory})),
            ..spec(
                ("OutOfMemory", "raise its memory limit"),
                json!({"engine": memory, "pools": [pool(&little)]}),
            )
        },
        Fault {
            fix: Fix::Objects(token.to_string()),
            ..spec(
                ("MissingSecret", "Secret hub does not exist"),
                json!({"model": {"tokenSecretRef": {"name": "hub"}}}),
            )
        },
        Fault {
            fix: Fix::Objects(format!("{volume}\n---\n{claim}")),
            ..spec(
                ("MissingClaim", "PersistentVolumeClaim weights does not exist"),
                json!({"model": {"uri": "pvc://weights/model"}}),
            )
        },
        Fault {
            before: Some(quota.to_string()),
            fix: Fix::Command(&["delete", "quota", "few"]),
            ..spec(("QuotaExceeded", "ResourceQuota few is used up"), json!({}))
        },
        spec(
            ("InvalidSpec", "queue-scoorer"),
            json!({"router": {"epp": {"config": {"inline": plugins}}}}),
        ),
        spec(
            ("DependencyMissing", "llmd crds apply --with gaie"),
            json!({"router": {"proxy": null, "mode": "Gateway", "gateway": {"parentRefs": [{"name": "gate"}]}}}),
        ),
    ]
}

/// Of engines: flag, port, architecture and egress in words recorded from vLLM 0.32, the others in those of the table.
fn of_engines() -> Vec<Fault> {
    vec![
        engine(("CrashLoop", "ends with exit code 3"), "crash"),
        engine(("ModelAccessDenied", "accept its licence"), "gated"),
        engine(("NoEgress", "allow egress"), "egress"),
        engine(("DiskFull", "the disk is full"), "disk"),
        engine(("AcceleratorOutOfMemory", "GPU's memory is too small"), "cuda"),
        engine(("DriverTooOld", "update the driver"), "driver"),
        engine(("UnsupportedModel", "use a newer engine image"), "architecture"),
        engine(("PortInUse", "the engine's port is taken"), "port"),
        spec(
            ("BadEngineFlag", "the engine refuses a flag"),
            json!({"engine": {"args": {"max-modle-len": "5"}}}),
        ),
    ]
}

fn is_of_an_engine(fault: &Fault) -> bool {
    of_engines().iter().any(|other| other.named == fault.named)
}

async fn named_and_gone(fault: Fault) {
    let site = Site::new().await;
    let (reason, part) = fault.named;
    if let Some(before) = &fault.before {
        site.namespace.apply(before).await.unwrap();
    }
    site.apply(&fault.wrong).await;
    let message = site.ready("False", reason, part).await;
    assert!(!message.contains(CANARY), "{message}");
    let kind = if reason == "Unschedulable" {
        "Normal"
    } else {
        "Warning"
    };
    site.event(kind, reason).await;
    if is_of_an_engine(&fault) {
        let said = site.status(reason, |pod| pod["cause"]["reason"] == reason).await;
        assert!(!said.contains(CANARY), "{said}");
    }
    match &fault.fix {
        Fix::Spec(right) => site.apply(right).await,
        Fix::Objects(objects) => drop(site.namespace.apply(objects).await.unwrap()),
        Fix::Command(words) => drop(site.kubectl(words).await),
    }
    site.ready("True", "Serving", "decode 1/1").await;
    site.keeps_secrets().await;
}

/// A node that ends takes its pods along; the fix is another node.
async fn a_lost_node_is_named_and_gone() {
    let site = Site::new().await;
    let there = json!({"scheduling": {
        "nodeSelector": {"kubernetes.io/hostname": "n3"},
        "tolerations": [{"key": "to-be-lost", "operator": "Exists", "effect": "NoSchedule"}],
    }});
    site.apply(&there).await;
    site.ready("True", "Serving", "decode 1/1").await;
    site.namespace.cluster().kill_node(3).await.unwrap();
    site.ready("False", "NodeNotReady", "node n3 does not answer")
        .await;
    site.event("Normal", "NodeNotReady").await;
    site.apply(&json!({})).await;
    site.ready("True", "Serving", "decode 1/1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_named_with_its_fix_and_gone_after_it_and_no_log_is_quoted() {
    let (cluster, _) = cluster().await;
    let mut all = JoinSet::new();
    for fault in of_pods().into_iter().chain(of_engines()) {
        all.spawn(named_and_gone(fault));
    }
    all.spawn(a_lost_node_is_named_and_gone());
    let mut failed = 0;
    while let Some(ended) = all.join_next().await {
        // its panic was printed
        failed += usize::from(ended.is_err());
    }
    assert_eq!(failed, 0, "faults that were not named or did not go");

    let ours = [
        "--namespace=llmd-system",
        "--selector=app.kubernetes.io/name=llmd-operator",
    ];
    let logs = cluster
        .kubectl(ours.into_iter().chain(["logs", "--tail=-1"]))
        .await
        .unwrap();
    assert!(logs.contains("reconciled"), "the log of the operator");
    assert!(!logs.contains(CANARY));
    let names = ours
        .into_iter()
        .chain(["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
    for name in cluster.kubectl(names).await.unwrap().split(' ') {
        let page = format!("/api/v1/namespaces/llmd-system/pods/{name}:8080/proxy/metrics");
        let page = cluster.kubectl(["get", "--raw", &page]).await.unwrap();
        assert!(page.contains("llmd_"), "{page}");
        assert!(!page.contains(CANARY));
    }
}
