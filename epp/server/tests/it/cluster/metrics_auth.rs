//! Who may read metrics.

use super::rig::{BARE, Site};
use crate::role::{Role, until_async};

const FLAGS: &str = "--endpoint-selector=app=a --endpoint-target-ports=8000";
const READERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAME}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NAME}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NAME}
subjects: [{kind: ServiceAccount, name: reader, namespace: NAME}]
";

/// A bearer header with a token that the API server made for the ServiceAccount.
async fn token(site: &Site, account: &str) -> String {
    site.namespace
        .kubectl(["create", "serviceaccount", account])
        .await
        .expect("an account");
    let token = site
        .namespace
        .kubectl(["create", "token", account])
        .await
        .expect("a token");
    format!("authorization: Bearer {}\r\n", token.trim())
}

async fn status(picker: &Role, path: &str, header: &str) -> String {
    let answer = picker.get_as(path, header).await;
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn only_a_service_account_that_may_get_the_page_reads_it() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let picker = site.picker(FLAGS).await;
    let (reader, stranger) = (token(&site, "reader").await, token(&site, "stranger").await);
    site.namespace
        .apply(&READERS.replace("NAME", site.namespace.name()))
        .await
        .expect("applied");
    assert_eq!(status(&picker, "/metrics", "").await, "401");
    assert_eq!(
        status(&picker, "/metrics", "authorization: Bearer forged\r\n").await,
        "401"
    );
    assert_eq!(status(&picker, "/metrics", &stranger).await, "403");
    // A denial is remembered for a moment only.
    until_async(async || (status(&picker, "/metrics", &reader).await == "200").then_some(())).await;
    let page = picker.get_as("/metrics", &reader).await;
    assert!(page.contains("llm_d_epp_ready_endpoints"), "{page}");
    assert_eq!(
        status(&picker, "/debug/endpoints", &reader).await,
        "403",
        "only /metrics is granted"
    );
    assert_eq!(status(&picker, "/healthz", "").await, "200");
}

#[tokio::test]
async fn without_authentication_everybody_reads() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let picker = site
        .picker(&format!("{FLAGS} --metrics-endpoint-auth=false"))
        .await;
    assert_eq!(status(&picker, "/metrics", "").await, "200");
    assert_eq!(status(&picker, "/debug/endpoints", "").await, "200");
}

#[tokio::test]
async fn a_picker_that_may_not_ask_says_so_and_shows_nothing() {
    let site = Site::on(BARE.get().await.expect("a cluster")).await;
    let user = site.namespace.cluster().user("no-reviews", None).expect("a user");
    let picker = site.picker_as(user.kubeconfig(), FLAGS).await;
    let reader = token(&site, "reader").await;
    let answer = picker.get_as("/metrics", &reader).await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("tokenreviews.authentication.k8s.io"), "{answer}");
    assert!(!answer.contains("llm_d_epp_"), "{answer}");
}
