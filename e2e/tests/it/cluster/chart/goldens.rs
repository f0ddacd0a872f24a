//! Everything that the chart renders, for the combinations of values that matter, as files to look at in a review.

use std::fmt::Write as _;

use serde_json::Value;

use super::template;

/// A value that only says where the content is: the files have tests of their own.
fn shorten(object: &mut Value) {
    let place = match object["kind"].as_str().unwrap() {
        "PrometheusRule" => Some(("/spec/groups", "files/alerts.yaml")),
        "ConfigMap" => Some(("/data/llmd.json", "files/dashboard.json")),
        _ => None,
    };
    if let Some((pointer, file)) = place {
        *object.pointer_mut(pointer).unwrap() = format!("<{file}>").into();
    }
}

/// The objects of a release, without the definitions, which are generated and embedded as they are.
fn release(values: &[&str]) -> String {
    let mut text = String::new();
    for mut object in template(values).unwrap() {
        if object["kind"] == "CustomResourceDefinition" {
            let name = &object["metadata"]["name"];
            writeln!(text, "--- # definition {}", name.as_str().unwrap()).unwrap();
            continue;
        }
        shorten(&mut object);
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&object).unwrap());
    }
    // a release changes no golden
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn as_it_comes() {
    insta::assert_snapshot!(release(&[]));
}

#[test]
fn for_a_list_of_namespaces_with_the_least_that_is_possible() {
    insta::assert_snapshot!(release(&[
        "namespaces={team-a,team-b}",
        "rbac.clusterKinds=false",
        "crds.install=false",
        "readEngineLogs=false",
        "replicaCount=1",
        "podDisruptionBudget.enabled=false",
    ]));
}

#[test]
fn with_accounts_and_roles_that_somebody_else_makes() {
    insta::assert_snapshot!(release(&[
        "rbac.create=false",
        "serviceAccount.create=false",
        "serviceAccount.name=theirs",
        "crds.install=false",
    ]));
}

#[test]
fn with_everything_that_is_off_by_default() {
    insta::assert_snapshot!(release(&[
        "crds.gaie=true",
        "networkPolicy.enabled=true",
        "podMonitor.enabled=true",
        "podMonitor.labels.release=prometheus",
        "prometheusRule.enabled=true",
        "dashboard.enabled=true",
        "assignedUsers=true",
        "priorityClassName=infra",
        "tolerations[0].key=infra",
        "tolerations[0].operator=Exists",
        "nodeSelector.role=infra",
    ]));
}

#[test]
fn behind_a_mirror_and_a_proxy() {
    insta::assert_snapshot!(release(&[
        "crds.install=false",
        "global.imageRegistry=mirror.example:5000/x",
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "image.pullPolicy=Always",
        "imagePullSecrets[0]=pull",
        "engines.proxy.http=http://proxy.example:3128",
        "engines.proxy.https=http://proxy.example:3128",
        "engines.proxy.noProxy=10.0.0.0/8",
        "engines.caBundle.configMap=trust",
        "logLevel=4",
        "logFormat=text",
    ]));
}
