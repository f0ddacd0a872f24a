//! Tells vLLM, SGLang, llama.cpp and Ollama apart by what they answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::url::EngineUrl;
use crate::probe::Prober;

/// Longest wait for one answer of an engine.
const DEADLINE: Duration = Duration::from_secs(5);

/// Which server an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineType {
    /// vLLM, and what speaks its metrics (the simulator).
    Vllm,
    /// SGLang.
    Sglang,
    /// The llama.cpp server.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// Something else with `/v1/models`.
    OpenAi,
}

impl EngineType {
    /// Value of the engine-type label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llamacpp",
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::LlamaCpp => "llama.cpp",
            Self::Ollama => "Ollama",
            Self::OpenAi => "an OpenAI-compatible server",
        }
    }

    /// A metric that the router needs, present only where metrics are served.
    fn metric(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("vllm:num_requests_waiting"),
            Self::Sglang => Some("sglang:num_queue_reqs"),
            Self::LlamaCpp => Some("llamacpp:requests_processing"),
            Self::Ollama | Self::OpenAi => None,
        }
    }

    /// What turns the metrics on, where that is possible.
    fn metrics_hint(self) -> &'static str {
        match self {
            Self::Vllm => "; start it without `--disable-log-stats` for load-aware routing",
            Self::Sglang => "; start it with `--enable-metrics` for load-aware routing",
            Self::LlamaCpp => "; start it with `--metrics` for load-aware routing",
            Self::Ollama | Self::OpenAi => "",
        }
    }
}

/// An engine as its answers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// URL as shown to the user.
    pub url: String,
    /// Where requests go.
    pub address: SocketAddr,
    /// Which server it is.
    pub kind: EngineType,
    /// Version, when it says one.
    pub version: Option<String>,
    /// Served models, sorted.
    pub models: Vec<String>,
    /// Whether the router sees its queue and KV use.
    pub metrics: bool,
}

impl Engine {
    /// One line for the user: what it is, and what the router cannot see.
    pub fn describe(&self) -> String {
        let version = self
            .version
            .as_deref()
            .map(|version| format!(" {version}"))
            .unwrap_or_default();
        let models = self.models.join(", ");
        let sight = if self.metrics {
            "routed by prefix, queue and KV use".to_owned()
        } else {
            format!(
                "no metrics, so routed by prefix and by the requests that pass through here only{}",
                self.kind.metrics_hint()
            )
        };
        format!(
            "{}: {}{version} with {models}; {sight}",
            self.url,
            self.kind.name()
        )
    }
}

/// Answers of an engine to the questions that tell servers apart.
#[derive(Debug, Default)]
struct Answers {
    metrics: String,
    version: Option<Value>,
    tags: Option<Value>,
    props: Option<Value>,
    server_info: Option<Value>,
}

/// Asks everything at once; an engine that does not list its models is an error.
pub async fn detect(prober: &Prober, url: &EngineUrl, address: SocketAddr) -> Result<Engine, String> {
    let base = format!("http://{address}");
    let ask = |path: &str| {
        let (prober, url) = (prober.clone(), format!("{base}{path}"));
        async move { prober.get(&url, DEADLINE).await }
    };
    let (models, metrics, version, tags, props, server_info) = tokio::join!(
        ask("/v1/models"),
        ask("/metrics"),
        ask("/version"),
        ask("/api/tags"),
        ask("/props"),
        ask("/get_server_info"),
    );
    let models = read_models(models)?;
    let answers = Answers {
        metrics: ok(metrics)
            .map(|page| String::from_utf8_lossy(&page).into_owned())
            .unwrap_or_default(),
        version: json(version),
        tags: json(tags),
        props: json(props),
        server_info: json(server_info),
    };
    let kind = classify(&answers);
    Ok(Engine {
        url: url.to_string(),
        address,
        kind,
        version: version_of(&answers, kind),
        models,
        metrics: kind
            .metric()
            .is_some_and(|metric| answers.metrics.lines().any(|line| line.starts_with(metric))),
    })
}

fn classify(answers: &Answers) -> EngineType {
    let has = |prefix: &str| answers.metrics.lines().any(|line| line.starts_with(prefix));
    let has_key =
        |value: &Option<Value>, key: &str| value.as_ref().is_some_and(|value| value.get(key).is_some());
    if has("vllm:") {
        EngineType::Vllm
    } else if has("sglang:") || answers.server_info.is_some() {
        EngineType::Sglang
    } else if has("llamacpp:") || has_key(&answers.props, "default_generation_settings") {
        EngineType::LlamaCpp
    } else if has_key(&answers.tags, "models") {
        EngineType::Ollama
    } else if has_key(&answers.version, "version") {
        EngineType::Vllm
    } else {
        EngineType::OpenAi
    }
}

fn version_of(answers: &Answers, kind: EngineType) -> Option<String> {
    let (source, key) = match kind {
        EngineType::Vllm => (&answers.version, "version"),
        EngineType::Sglang => (&answers.server_info, "version"),
        EngineType::LlamaCpp => (&answers.props, "build_info"),
        EngineType::Ollama | EngineType::OpenAi => return None,
    };
    Some(source.as_ref()?.get(key)?.as_str()?.to_owned())
}

fn read_models(answer: Result<(u16, Bytes), String>) -> Result<Vec<String>, String> {
    let (status, body) = answer.map_err(|problem| format!("is not reachable: {problem}; start it first"))?;
    match status {
        200 => {}
        401 | 403 => {
            return Err(format!(
                "asks for a key (status {status} on /v1/models): start it without one"
            ));
        }
        _ => {
            return Err(format!(
                "status {status} on /v1/models: is it an OpenAI-compatible server?"
            ));
        }
    }
    let page: Value =
        serde_json::from_slice(&body).map_err(|error| format!("/v1/models is no JSON: {error}"))?;
    let entries = page.get("data").and_then(Value::as_array);
    let mut models: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("id")?.as_str().map(str::to_owned))
        .collect();
    if models.is_empty() {
        return Err("serves no model yet (/v1/models is empty): load one first".to_owned());
    }
    models.sort();
    Ok(models)
}

fn ok(answer: Result<(u16, Bytes), String>) -> Option<Bytes> {
    answer
        .ok()
        .filter(|(status, _)| *status == 200)
        .map(|(_, body)| body)
}

fn json(answer: Result<(u16, Bytes), String>) -> Option<Value> {
    ok(answer).and_then(|body| serde_json::from_slice(&body).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine(kind: EngineType, metrics: bool) -> Engine {
        Engine {
            url: "http://127.0.0.1:1".into(),
            address: "127.0.0.1:1".parse().unwrap(),
            kind,
            version: None,
            models: vec!["m".into()],
            metrics,
        }
    }

    #[test]
    fn each_server_is_known_by_its_answers() {
        let table = [
            (
                Answers {
                    metrics: "vllm:num_requests_waiting 0\n".into(),
                    ..Default::default()
                },
                EngineType::Vllm,
            ),
            (
                Answers {
                    version: Some(json!({"version": "0.32.0"})),
                    ..Default::default()
                },
                EngineType::Vllm,
            ),
            (
                Answers {
                    server_info: Some(json!({"version": "0.5"})),
                    ..Default::default()
                },
                EngineType::Sglang,
            ),
            (
                Answers {
                    props: Some(json!({"default_generation_settings": {}})),
                    ..Default::default()
                },
                EngineType::LlamaCpp,
            ),
            (
                Answers {
                    tags: Some(json!({"models": []})),
                    version: Some(json!({"version": "0.12"})),
                    ..Default::default()
                },
                EngineType::Ollama,
            ),
            (Answers::default(), EngineType::OpenAi),
        ];
        for (answers, kind) in table {
            assert_eq!(classify(&answers), kind, "{answers:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_said_with_the_fix() {
        let text = engine(EngineType::Sglang, false).describe();
        assert!(
            text.contains("no metrics") && text.contains("--enable-metrics"),
            "{text}"
        );
        let text = engine(EngineType::Vllm, true).describe();
        assert!(text.contains("queue and KV use"), "{text}");
    }

    #[test]
    fn a_page_without_models_is_an_error_with_the_fix() {
        let page =
            |status: u16, text: &'static str| read_models(Ok((status, Bytes::from_static(text.as_bytes()))));
        assert_eq!(
            page(200, r#"{"data":[{"id":"b"},{"id":"a"}]}"#).unwrap(),
            ["a", "b"]
        );
        assert!(page(200, r#"{"data":[]}"#).unwrap_err().contains("load one"));
        assert!(page(401, "").unwrap_err().contains("asks for a key"));
        assert!(page(404, "").unwrap_err().contains("404"));
        assert!(
            read_models(Err("connection refused".into()))
                .unwrap_err()
                .contains("start it first")
        );
    }
}
