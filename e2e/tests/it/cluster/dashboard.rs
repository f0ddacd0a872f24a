//! The chart's dashboard and alerts, and the page about metrics, against what an operator and a router give out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;

use llmd_e2e::http;
use llmd_e2e::poll::free_port;
use llmd_e2e::process::{Process, llmd_bin};
use llmd_e2e_cluster::{Cluster, Namespace, Shared, poll_until};
use serde_json::{Value, json};

static CLUSTER: Shared = Shared::new(Cluster::api);
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/llmd");
const DEMO: &str = "
apiVersion: llmd.dev/v1alpha1
kind: LLMDeployment
metadata: {name: demo}
spec: {path: simulated, model: {name: test/model}}
";
/// Labels that Prometheus adds: of the scraped pod, as the chart's `PodMonitor`s say.
const OF_THE_TARGET: [&str; 2] = ["namespace", "llmd_dev_deployment"];

/// Names of labels by the name of a sample, such as `x_bucket`.
type Samples = BTreeMap<String, BTreeSet<String>>;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn get(path: &str) -> hyper::Request<http_body_util::Full<bytes::Bytes>> {
    let request = hyper::Request::get(path).header("host", "localhost");
    request.body(http_body_util::Full::default()).unwrap()
}

/// A page in the text format, or nothing while nobody listens.
async fn page(address: SocketAddr) -> Option<String> {
    Some(http::send(address, get("/metrics")).await.ok()?.text())
}

fn samples(page: &str) -> Samples {
    let mut samples = Samples::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        // a value may hold any character, but ours hold no `="`
        let labels = line.split("=\"").filter_map(|part| {
            let label = part.rsplit(['{', ',']).next()?;
            let is_name = !label.is_empty() && !label.contains(['"', ' ', '}']);
            is_name.then(|| label.to_owned())
        });
        samples.entry(name.to_owned()).or_default().extend(labels);
    }
    samples
}

/// An operator of one namespace and the address of its metrics.
fn operator(namespace: &Namespace) -> (Process, SocketAddr) {
    let metrics = local(free_port());
    let mut command = Command::new(llmd_bin());
    command
        .args([
            "operator",
            "--leader-elect=false",
            "--health-probe-bind-address=127.0.0.1:0",
        ])
        .arg(format!("--namespaces={}", namespace.name()))
        .arg(format!("--metrics-bind-address={metrics}"))
        .env("KUBECONFIG", namespace.cluster().kubeconfig());
    (Process::spawn("operator", command), metrics)
}

/// A picker with its own proxy in front of one simulated engine, after an answer, a stream and a refusal.
async fn router(namespace: &Namespace) -> (Vec<Process>, SocketAddr) {
    let [engine, grpc, health, metrics, proxy] = [(); 5].map(|()| local(free_port()));
    let simulated = ["sim", "--model=test/model", "--host=127.0.0.1"];
    let port = format!("--port={}", engine.port());
    let simulated = Process::llmd(simulated.into_iter().chain([&*port]));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "engine", "labels": {"app": "engine"}},
        "spec": {"containers": [{"name": "engine", "image": "i"}]}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    namespace.apply(&account.to_string()).await.unwrap();
    namespace.apply(&pod.to_string()).await.unwrap();
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let status = status.to_string();
    let patch = [
        "patch",
        "pod",
        "engine",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    namespace.kubectl(patch).await.unwrap();
    let picker = Process::llmd([
        "epp".to_owned(),
        "--secure-serving=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--proxy-bind-address=127.0.0.1".to_owned(),
        "--metrics-endpoint-auth=false".to_owned(),
        "--endpoint-selector=app=engine".to_owned(),
        format!("--kubeconfig={}", namespace.cluster().kubeconfig().display()),
        format!("--pool-namespace={}", namespace.name()),
        format!("--endpoint-target-ports={}", engine.port()),
        format!("--grpc-port={}", grpc.port()),
        format!("--grpc-health-port={}", health.port()),
        format!("--metrics-port={}", metrics.port()),
        format!("--proxy-port={}", proxy.port()),
    ]);
    let ask = async |model: &str, stream: bool| {
        let body = json!({"model": model, "stream": stream, "max_tokens": 4,
            "messages": [{"role": "user", "content": "hello"}], "stream_options": stream.then(|| json!({"include_usage": true}))});
        let request = hyper::Request::post("/v1/chat/completions")
            .header("host", "localhost")
            .header("content-type", "application/json");
        let request = request
            .body(http_body_util::Full::from(body.to_string()))
            .unwrap();
        Some(http::send(proxy, request).await.ok()?.status)
    };
    poll_until("an answer", || async {
        (ask("test/model", false).await == Some(200)).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(ask("test/model", true).await, Some(200));
    assert_ne!(ask("nobody/knows", false).await, Some(200));
    (vec![simulated, picker], metrics)
}

/// Every expression of the dashboard and of the alerts, with the text that shows its labels.
fn expressions() -> Vec<(String, String)> {
    let file = |path: &str| std::fs::read_to_string(format!("{CHART}/files/{path}")).unwrap();
    let dashboard: Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let alerts: Value = serde_yaml::from_str(&file("alerts.yaml")).unwrap();
    let mut found = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for target in dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
    {
        found.push((text(&target["expr"]), text(&target["legendFormat"])));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        found.push((text(&variable["query"]), String::new()));
    }
    for rule in alerts["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        found.push((text(&rule["expr"]), rule["annotations"].to_string()));
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// Labels that an expression or a text of it names: in selectors, behind `by`, and in `{{ }}`.
fn labels(expression: &str, shown: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in expression.split("by (").skip(1) {
        found.extend(words(part.split(')').next().unwrap()).map(str::to_owned));
    }
    for part in expression.split('{').skip(1) {
        for matcher in part.split('}').next().unwrap().split(',') {
            found.extend(words(matcher).next().map(str::to_owned));
        }
    }
    for part in shown.split("{{").skip(1) {
        let name = part.split("}}").next().unwrap().trim();
        found.insert(name.trim_start_matches("$labels.").to_owned());
    }
    found.remove("");
    found
}

#[tokio::test]
async fn every_metric_and_label_that_is_asked_for_is_given_out() {
    let namespace = CLUSTER.get().await.unwrap().namespace().await.unwrap();
    let (_operator, operator) = operator(&namespace);
    namespace.apply(DEMO).await.unwrap();
    let series = format!(r#"name="demo",namespace="{}",type="Ready""#, namespace.name());
    poll_until("the condition of demo", || async {
        page(operator).await?.contains(&series).then_some(())
    })
    .await
    .unwrap();
    let (_router, router) = router(&namespace).await;

    let mut missing = Vec::new();
    let known = poll_until("the pool's gauges", || async {
        let known = samples(&format!("{}\n{}", page(operator).await?, page(router).await?));
        known
            .contains_key("llm_d_epp_average_queue_size")
            .then_some(known)
    })
    .await
    .unwrap();
    let mut seen = 0;
    for (expression, shown) in expressions() {
        let metrics: Vec<&str> = words(&expression)
            .filter(|word| {
                word.starts_with("llm_d_epp_")
                    || word.starts_with("llmd_operator_")
                    || *word == "llmd_deployment_condition"
            })
            .collect();
        for metric in &metrics {
            seen += 1;
            let Some(given) = known.get(*metric) else {
                missing.push(format!("{metric} of `{expression}`"));
                continue;
            };
            for label in labels(&expression, &shown) {
                if !given.contains(&label) && !OF_THE_TARGET.contains(&label.as_str()) {
                    missing.push(format!("label {label} of {metric} in `{expression}`"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}\n{known:#?}");
    assert!(seen > 15, "only {seen} metrics were found");

    namespace.kubectl(["delete", "llmd", "demo"]).await.unwrap();
    poll_until("no series of a resource that is gone", || async {
        (!page(operator).await?.contains(r#"name="demo""#)).then_some(())
    })
    .await
    .unwrap();
}
