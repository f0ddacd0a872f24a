//! The chart, by the real helm: what it renders, what it refuses, and what an uninstall leaves.

mod goldens;

use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use llmd_e2e_cluster::{Cluster, Shared, artifacts};
use serde_json::Value;

static CLUSTER: Shared = Shared::new(|| Cluster::api().without_our_crds());
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/llmd");

/// `helm ARGS CHART SET…`: standard output, or what it complained about.
fn helm(arguments: &[&str], values: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(artifacts::program("helm").unwrap());
    helm.args(arguments).arg(CHART);
    helm.args(values.iter().flat_map(|value| ["--set", *value]));
    let done = helm.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if done.status.success() {
        Ok(text(done.stdout))
    } else {
        Err(text(done.stderr))
    }
}

/// The objects that the chart renders with `values`.
fn template(values: &[&str]) -> Result<Vec<Value>, String> {
    let arguments = [
        "template",
        "llmd",
        "--namespace=llmd-system",
        "--kube-version=1.34",
    ];
    let yaml = helm(&arguments, values)?;
    let objects = yaml
        .split("\n---\n")
        .map(|one| serde_yaml::from_str::<Value>(one).unwrap());
    Ok(objects.filter(|object| !object.is_null()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn operator_arguments(objects: &[Value]) -> Vec<String> {
    let deployment = of_kind(objects, "Deployment")[0];
    serde_json::from_value(deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone()).unwrap()
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    helm(&["lint", "--strict", "--quiet", "--kube-version=1.34"], &[]).unwrap();
}

#[test]
fn the_operator_takes_the_arguments_that_the_chart_gives() {
    let objects = template(&[
        "namespaces={a,b}",
        "logFormat=text",
        "logLevel=4",
        "assignedUsers=true",
        "global.imageRegistry=mirror.example",
        "engines.proxy.https=http://proxy.example:3128",
        "engines.proxy.noProxy=10.0.0.0/8",
        "engines.caBundle.configMap=trust",
    ])
    .unwrap();
    let arguments = operator_arguments(&objects);
    assert_eq!(arguments[0], "operator");
    for expected in [
        "--image-mirror=mirror.example",
        "--engine-https-proxy=http://proxy.example:3128",
        "--engine-no-proxy=10.0.0.0/8",
        "--engine-ca-bundle=trust/ca-bundle.crt",
    ] {
        assert!(
            arguments.iter().any(|argument| argument == expected),
            "{arguments:?}"
        );
    }
    assert!(
        arguments.contains(&"--namespaces=a,b".to_owned()),
        "{arguments:?}"
    );
    // no cluster there: it must get as far as missing one
    let done = Command::new(llmd_e2e::process::llmd_bin())
        .args(&arguments)
        .env("KUBECONFIG", "/nonexistent")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success());
    assert!(!said.contains("flag"), "{said}");
}

#[test]
fn logs_are_read_only_where_the_values_say_so() {
    for (value, reads) in [("readEngineLogs=true", true), ("readEngineLogs=false", false)] {
        for values in [&[value][..], &[value, "namespaces={a,b}"]] {
            let objects = template(values).unwrap();
            let flag = format!("--read-engine-logs={reads}");
            assert!(operator_arguments(&objects).contains(&flag), "{value}");
            let all = serde_json::to_string(&objects).unwrap();
            assert_eq!(all.contains("pods/log"), reads, "{values:?}");
        }
    }
}

#[test]
fn a_typo_and_an_empty_repository_are_refused() {
    let typo = template(&["replicacount=3"]).unwrap_err();
    assert!(typo.contains("replicacount"), "{typo}");
    let nested = template(&["podMonitor.enable=true"]).unwrap_err();
    assert!(nested.contains("enable"), "{nested}");
    let kind = template(&["replicaCount=two"]).unwrap_err();
    assert!(kind.contains("replicaCount"), "{kind}");
    let empty = template(&["image.repository="]).unwrap_err();
    assert!(
        empty.contains("image.repository is empty") && empty.contains("--set image.repository="),
        "{empty}"
    );
}

#[test]
fn a_mirror_takes_the_place_of_the_registry() {
    let objects = template(&["global.imageRegistry=mirror.example:5000/x"]).unwrap();
    let container = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let image = container["image"].as_str().unwrap();
    assert!(
        image.starts_with("mirror.example:5000/x/llmd-dev/llmd:v"),
        "{image}"
    );
    let arguments = operator_arguments(&objects);
    assert!(arguments.contains(&"--image-registry=mirror.example:5000/x/llmd-dev".to_owned()));
}

#[test]
fn every_pod_is_restricted_and_no_user_is_written() {
    for object in of_kind(&template(&[]).unwrap(), "Deployment") {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        // OpenShift assigns one
        assert!(pod["securityContext"].get("runAsUser").is_none());
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(context.get("runAsUser").is_none());
        }
    }
}

#[test]
fn no_role_reads_secrets_and_none_has_a_wildcard() {
    for values in [&[][..], &["namespaces={a,b}"]] {
        let objects = template(values).unwrap();
        let roles = of_kind(&objects, "ClusterRole");
        let roles: Vec<_> = roles.into_iter().chain(of_kind(&objects, "Role")).collect();
        assert!(!roles.is_empty());
        for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
            let text = rule.to_string();
            assert!(!text.contains("secrets") && !text.contains('*'), "{text}");
        }
    }
}

#[test]
fn with_a_list_of_namespaces_nothing_is_granted_elsewhere() {
    let objects = template(&["namespaces={a,b}", "rbac.clusterKinds=false"]).unwrap();
    assert!(of_kind(&objects, "ClusterRole").is_empty());
    let places = |kind| -> Vec<String> {
        let roles = of_kind(&objects, kind);
        let mut places: Vec<String> = roles
            .iter()
            .map(|role| role["metadata"]["namespace"].as_str().unwrap().to_owned())
            .collect();
        places.sort();
        places
    };
    assert_eq!(places("Role"), ["a", "b", "llmd-system"]);
    assert_eq!(places("RoleBinding"), ["a", "b", "llmd-system"]);
    let objects = template(&["namespaces={a}"]).unwrap();
    let cluster = of_kind(&objects, "ClusterRole")[0]["rules"].to_string();
    assert!(!cluster.contains("\"deployments\""), "{cluster}");
}

#[tokio::test]
async fn an_uninstall_keeps_the_definitions_and_an_upgrade_updates_them() {
    let cluster = CLUSTER.get().await.unwrap();
    let client = cluster.client().await.unwrap();
    let run = async |arguments: &[&str]| cluster.helm(arguments).await.unwrap();
    let notes = run(&[
        "install",
        "llmd",
        CHART,
        "--namespace=llmd-system",
        "--create-namespace",
    ])
    .await;
    assert!(
        notes.contains("kubectl wait") && notes.contains("llmd status demo"),
        "{notes}"
    );
    // what it tells people to apply is accepted
    let document = notes
        .split("<<END\n")
        .nth(1)
        .and_then(|rest| rest.split("END\n").next());
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), document.unwrap()).unwrap();
    accepts(cluster, file.path()).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "llmdeployments.llmd.dev";
    let first = definitions.get(name).await.unwrap();

    let forget = serde_json::json!({"metadata": {"labels": {"forgotten": "yes"}}});
    let merge = kube::api::Patch::Merge(&forget);
    definitions
        .patch(name, &kube::api::PatchParams::default(), &merge)
        .await
        .unwrap();
    run(&[
        "upgrade",
        "llmd",
        CHART,
        "--namespace=llmd-system",
        "--set=replicaCount=3",
    ])
    .await;
    let deployments: Api<Deployment> = Api::namespaced(client, "llmd-system");
    let replicas = deployments.get("llmd").await.unwrap().spec.unwrap().replicas;
    assert_eq!(replicas, Some(3));

    run(&["uninstall", "llmd", "--namespace=llmd-system"]).await;
    assert!(deployments.get_opt("llmd").await.unwrap().is_none());
    let kept = definitions.get(name).await.unwrap();
    assert_eq!(kept.metadata.uid, first.metadata.uid);
    // and a second installation takes them over
    run(&["install", "llmd", CHART, "--namespace=llmd-system"]).await;
    run(&["uninstall", "llmd", "--namespace=llmd-system"]).await;
}

/// What the API server says to a file, and our own checks to it, without keeping it.
async fn accepts(cluster: &Cluster, file: &std::path::Path) {
    let path = file.to_str().unwrap();
    let apply = ["apply", "--server-side", "--dry-run=server", "-f", path];
    cluster.kubectl(apply).await.unwrap();
    let done = Command::new(llmd_e2e::process::llmd_bin())
        .args(["validate", "-f", path])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
