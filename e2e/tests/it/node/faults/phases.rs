//! From a pod to a model that answers, step by step.

use serde_json::json;

use super::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_message_goes_through_the_phases_of_a_start() {
    let site = Site::new().await;
    site.apply(&json!({"engine": {"env": [{"name": "FAULT", "value": "phases"}]}}))
        .await;
    for (phase, done) in [
        ("downloading the model for", "downloaded"),
        ("loading the weights for", "loaded"),
        ("compiling for", "compiled"),
        ("warming up for", "warm"),
    ] {
        site.ready("False", "WaitingForPods", phase).await;
        let step = phase.trim_end_matches(" for");
        site.status(step, |pod| pod["step"] == step).await;
        let file = format!(": > /tmp/{done}");
        site.kubectl(&["exec", "deployment/demo-decode", "--", "/bin/sh", "-c", &file])
            .await;
    }
    site.ready("True", "Serving", "decode 1/1").await;
    site.keeps_secrets().await;
}
