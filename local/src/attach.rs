//! Attaches OpenAI-compatible servers that already run: finds out what they are, what they serve and what the
//! router can see of them.

mod config;
mod detect;
mod url;

use std::collections::BTreeMap;

pub use config::router_config;
pub use detect::{Engine, EngineType, detect};
pub use url::{EngineUrl, UrlError};

use crate::endpoints::Endpoint;
use crate::error::LocalError;
use crate::probe::Prober;

/// Label that selects the engine's metric names (llm-d-router `core-metrics-extractor`).
pub const ENGINE_TYPE_LABEL: &str = "llm-d.ai/engine-type";

/// Label with the models of an endpoint, separated by commas; read by our `served-model-filter`.
pub const MODELS_LABEL: &str = "llmd.dev/models";

/// Probes all engines at once. The first one that cannot be used is the error.
pub async fn attach(prober: &Prober, urls: &[String]) -> Result<Vec<Engine>, LocalError> {
    let mut parsed = Vec::with_capacity(urls.len());
    for text in urls {
        let refuse = |problem: String| LocalError::Engine {
            url: text.clone(),
            problem,
        };
        let url = EngineUrl::parse(text).map_err(|error| refuse(error.to_string()))?;
        let address = url.resolve().await.map_err(|error| refuse(error.to_string()))?;
        let twin = parsed.iter().find(|(_, _, known)| *known == address);
        if let Some((other, ..)) = twin {
            return Err(refuse(format!(
                "is the same address as {other}: name each engine once"
            )));
        }
        parsed.push((text.clone(), url, address));
    }
    let mut engines = Vec::with_capacity(parsed.len());
    let asked: Vec<_> = parsed
        .into_iter()
        .map(|(text, url, address)| {
            let prober = prober.clone();
            (
                text,
                tokio::spawn(async move { detect(&prober, &url, address).await }),
            )
        })
        .collect();
    for (url, task) in asked {
        let detected = task.await.unwrap_or_else(|error| Err(error.to_string()));
        engines.push(detected.map_err(|problem| LocalError::Engine { url, problem })?);
    }
    Ok(engines)
}

/// The endpoints file's entries for attached engines.
pub fn endpoints(engines: &[Engine], namespace: &str) -> Vec<Endpoint> {
    engines
        .iter()
        .enumerate()
        .map(|(number, engine)| Endpoint {
            name: format!("engine-{number}"),
            namespace: namespace.to_owned(),
            address: engine.address.ip().to_string(),
            port: engine.address.port().to_string(),
            labels: BTreeMap::from([
                (ENGINE_TYPE_LABEL.to_owned(), engine.kind.label().to_owned()),
                (MODELS_LABEL.to_owned(), engine.models.join(",")),
            ]),
        })
        .collect()
}

/// Whether the engines differ in what they serve, so that the router must look at the model.
pub fn models_differ(engines: &[Engine]) -> bool {
    engines.windows(2).any(|pair| pair[0].models != pair[1].models)
}

/// All served models, each once.
pub fn models(engines: &[Engine]) -> Vec<String> {
    let mut all: Vec<String> = engines
        .iter()
        .flat_map(|engine| engine.models.iter().cloned())
        .collect();
    all.sort();
    all.dedup();
    all
}
