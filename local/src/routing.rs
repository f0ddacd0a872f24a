//! Reads `GET /debug/endpoints` of the router: the pool as its picker sees it.

use std::time::Duration;

use serde::Deserialize;

use crate::probe::Prober;

/// Rendered port of the router's metrics and debug pages.
pub const METRICS_PORT: u16 = 9090;

/// Longest wait for the page.
const DEADLINE: Duration = Duration::from_secs(1);

/// An endpoint with its load. Unknown fields of the page are left alone: it may grow.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutedEndpoint {
    /// Name without namespace.
    pub name: String,
    /// `ip:port`.
    pub target: String,
    /// Engine whose metric names are read.
    pub engine_type: String,
    /// Requests in the engine's queue.
    pub waiting: u32,
    /// Requests in the engine's batch.
    pub running: u32,
    /// KV-cache use, 0..=1.
    pub kv_cache_usage: f64,
    /// Requests sent through the router and not finished.
    pub in_flight_requests: u64,
    /// Share of prompt tokens found in the engine's cache; `None` when unknown.
    pub prefix_hit_rate: Option<f64>,
    /// Age of the engine's metrics; `None` before the first time.
    pub metrics_age_ms: Option<u64>,
    /// Left out because it could not be reached.
    pub ejected: bool,
}

#[derive(Deserialize)]
struct Page {
    endpoints: Vec<RoutedEndpoint>,
}

/// The endpoints that the router on local metrics port `port` knows, by name.
pub async fn endpoints(prober: &Prober, port: u16) -> Result<Vec<RoutedEndpoint>, String> {
    let url = format!("http://127.0.0.1:{port}/debug/endpoints");
    let (status, body) = prober.get(&url, DEADLINE).await?;
    if status != 200 {
        return Err(format!("status {status}"));
    }
    parse(&body)
}

fn parse(body: &[u8]) -> Result<Vec<RoutedEndpoint>, String> {
    let mut page: Page = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    for endpoint in &mut page.endpoints {
        if let Some((_, name)) = endpoint.name.split_once('/') {
            endpoint.name = name.to_owned();
        }
    }
    Ok(page.endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_read_without_its_namespaces() {
        let page = br#"{"endpoints":[{"name":"default/a-0","target":"127.0.0.1:20001","labels":{},"engineType":"vllm",
            "waiting":1,"running":2,"kvCacheUsage":0.5,"inFlightRequests":3,"inFlightTokens":40,
            "prefixHitRate":null,"metricsAgeMs":12,"ejected":false,"errors":0,"lastError":null}]}"#;
        let endpoints = parse(page).unwrap();
        assert_eq!(
            (endpoints[0].name.as_str(), endpoints[0].in_flight_requests),
            ("a-0", 3)
        );
        assert_eq!(
            (endpoints[0].prefix_hit_rate, endpoints[0].metrics_age_ms),
            (None, Some(12))
        );
    }
}
