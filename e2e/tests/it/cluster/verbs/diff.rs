//! `llmd diff`.

use super::{DEPLOYMENT, file, json, namespace, run};
use crate::up::support::llmd;

#[tokio::test]
async fn it_shows_what_an_apply_would_change_and_changes_nothing() {
    let namespace = namespace().await;
    let document = file(DEPLOYMENT);
    let path = document.path().to_str().unwrap();
    let compare = ["diff", "-f", path, "--output=json"];
    let (code, said, complaint) = run(&namespace, &compare).await;
    assert_eq!((code, complaint.as_str()), (1, ""));
    let changes = json(&said);
    let changes = changes.as_array().unwrap();
    assert!(
        changes.len() > 3 && changes.iter().all(|change| change["action"] == "created"),
        "{said}"
    );
    let none = namespace
        .kubectl(["get", "deployments,services", "--output=name"])
        .await
        .unwrap();
    assert!(!none.contains("chat"), "a dry run made {none}");

    // what the operator would have applied
    let render = [
        "render",
        "-f",
        path,
        "--no-inference-pool",
        "--namespace",
        namespace.name(),
    ];
    let (code, objects, complaint) = llmd(&render);
    assert_eq!(code, 0, "{complaint}");
    let objects = file(&objects);
    let apply = ["apply", "--server-side", "--field-manager=llmd-operator", "-f"];
    namespace
        .kubectl(apply.into_iter().chain([objects.path().to_str().unwrap()]))
        .await
        .unwrap();
    let (code, said, complaint) = run(&namespace, &compare).await;
    assert_eq!(code, 0, "{said}{complaint}");

    namespace.apply(DEPLOYMENT).await.unwrap();
    assert_eq!(run(&namespace, &["diff", "chat"]).await.0, 0);
    let scale = ["scale", "deployment", "--all", "--replicas=7"];
    namespace.kubectl(scale).await.unwrap();
    let (code, text, _) = run(&namespace, &["diff", "chat"]).await;
    assert_eq!(code, 1);
    assert!(text.contains("-  replicas: 7"), "{text}");
}

#[tokio::test]
async fn an_unknown_version_of_the_path_is_wrong_input() {
    let namespace = namespace().await;
    namespace.apply(DEPLOYMENT).await.unwrap();
    let (code, _, complaint) = run(&namespace, &["diff", "chat", "--to-path-version=v99"]).await;
    assert_eq!(code, 2);
    assert!(complaint.contains("v99"), "{complaint}");
}
