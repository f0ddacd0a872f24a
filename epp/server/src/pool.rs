//! Gauges of the pool, refreshed every `--refresh-prometheus-metrics-interval`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llmd_epp_api::Snapshot;
use llmd_epp_core::metrics::twin_help;
use prometheus::{GaugeVec, Opts, Registry};

use crate::datalayer::DataLayer;

/// A gauge with its deprecated twin, both with the pool's name as first label.
struct Twin(Vec<GaugeVec>);

impl Twin {
    fn set(&self, labels: &[&str], value: f64) {
        for gauge in &self.0 {
            gauge.with_label_values(labels).set(value);
        }
    }

    fn remove(&self, labels: &[&str]) {
        for gauge in &self.0 {
            // An error means that the series is not there.
            let _ = gauge.remove_label_values(labels);
        }
    }
}

/// Mean and deviation of one value over the fresh endpoints.
struct Spread {
    average: Twin,
    deviation: Twin,
}

impl Spread {
    fn set(&self, pool: &str, values: impl Iterator<Item = f64> + Clone) {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        let deviation = if count > 1.0 {
            (squares / (count - 1.0)).sqrt()
        } else {
            0.0
        };
        self.average.set(&[pool], two_decimals(mean));
        self.deviation.set(&[pool], two_decimals(deviation));
    }
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The pool's gauges, with upstream's names.
pub struct PoolMetrics {
    pool: String,
    kv_cache: Spread,
    queue: Spread,
    running: Spread,
    ready: Twin,
    per_endpoint: Twin,
    age: Twin,
    /// Endpoints with a `per_endpoint` series.
    listed: BTreeSet<Arc<str>>,
}

impl PoolMetrics {
    /// Registers the gauges; with `deprecated` under their older names as well.
    pub fn register(registry: &Registry, pool: &str, deprecated: bool) -> Result<Self, prometheus::Error> {
        let gauges = |names: &[(&str, &[&str])], help: &str| {
            let mut gauges = Vec::new();
            for (name, labels) in names.iter().take(if deprecated { names.len() } else { 1 }) {
                let current = names[0].0;
                let help = if *name == current {
                    format!("[ALPHA] {help}")
                } else {
                    twin_help(current, help)
                };
                let gauge = GaugeVec::new(Opts::new(*name, help), labels)?;
                registry.register(Box::new(gauge.clone()))?;
                gauges.push(gauge);
            }
            Ok::<_, prometheus::Error>(Twin(gauges))
        };
        let spread = |what: &str, words: &str| {
            let average = format!("average_{what}");
            let names = [
                format!("llm_d_epp_{average}"),
                format!("inference_pool_{average}"),
            ];
            let labels: &[&str] = &["name"];
            Ok::<_, prometheus::Error>(Spread {
                average: gauges(
                    &[(&names[0], labels), (&names[1], labels)],
                    &format!("Average {words} over the endpoints with fresh metrics."),
                )?,
                deviation: gauges(
                    &[(&format!("llm_d_epp_std_dev_{what}"), labels)],
                    &format!(
                        "Sample standard deviation of the {words} over the endpoints with fresh metrics."
                    ),
                )?,
            })
        };
        Ok(Self {
            pool: pool.to_owned(),
            kv_cache: spread("kv_cache_utilization", "KV-cache utilization")?,
            queue: spread("queue_size", "number of queued requests")?,
            running: spread("running_requests", "number of running requests")?,
            ready: gauges(
                &[
                    ("llm_d_epp_ready_endpoints", &["name"]),
                    ("inference_pool_ready_pods", &["name"]),
                ],
                "Number of endpoints with fresh metrics.",
            )?,
            per_endpoint: gauges(
                &[
                    (
                        "llm_d_epp_per_endpoint_queue_size",
                        &["name", "model_server_endpoint"],
                    ),
                    ("inference_pool_per_pod_queue_size", &["name", "model_server_pod"]),
                ],
                "Number of queued requests of each endpoint.",
            )?,
            age: gauges(
                &[(
                    "llm_d_epp_endpoint_metrics_age_seconds",
                    &["name", "model_server_endpoint"],
                )],
                "Time since an endpoint's metrics were read.",
            )?,
            listed: BTreeSet::new(),
        })
    }

    /// Sets the gauges from `snapshot`. The averages keep their value while no endpoint was scraped
    /// within `staleness`; series of gone endpoints are removed.
    pub fn update(&mut self, snapshot: &Snapshot, now: Instant, staleness: Duration) {
        let fresh: Vec<usize> = (0..snapshot.len())
            .filter(|index| snapshot.is_fresh(*index, now, staleness))
            .collect();
        self.ready.set(&[&self.pool], fresh.len() as f64);
        if !fresh.is_empty() {
            self.kv_cache
                .set(&self.pool, fresh.iter().map(|index| snapshot.kv_usage[*index]));
            self.queue.set(
                &self.pool,
                fresh.iter().map(|index| f64::from(snapshot.waiting[*index])),
            );
            self.running.set(
                &self.pool,
                fresh.iter().map(|index| f64::from(snapshot.running[*index])),
            );
        }
        let mut gone = std::mem::take(&mut self.listed);
        for (index, endpoint) in snapshot.endpoints.iter().enumerate() {
            if snapshot.updated[index].is_none() {
                continue;
            }
            let name = &endpoint.name().name;
            self.per_endpoint.set(
                &[&self.pool, name],
                f64::from(snapshot.records[index].waiting_queue_size),
            );
            if let Some(updated) = snapshot.updated[index] {
                let age = now.saturating_duration_since(updated);
                self.age.set(&[&self.pool, name], age.as_secs_f64());
            }
            gone.remove(name);
            self.listed.insert(Arc::clone(name));
        }
        for name in gone {
            self.per_endpoint.remove(&[&self.pool, &name]);
            self.age.remove(&[&self.pool, &name]);
        }
    }
}

/// Refreshes the gauges until the task is dropped.
pub async fn refresh(mut metrics: PoolMetrics, layer: DataLayer, interval: Duration, staleness: Duration) {
    let mut ticker = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticker.tick().await;
        metrics.update(&layer.snapshot(), Instant::now(), staleness);
    }
}

#[cfg(test)]
mod tests {
    use llmd_epp_api::{Endpoint, EndpointName, EndpointSpec, MetricsRecord, Slot};
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    fn member(name: &str, waiting: u32, scraped: Option<Instant>) -> (Arc<Endpoint>, Arc<MetricsRecord>) {
        let spec = EndpointSpec {
            name: EndpointName::new("default", name),
            pod: name.into(),
            address: "127.0.0.1".parse().expect("address"),
            port: 1,
            rank: 0,
            reach: llmd_epp_api::Reach::default(),
            labels: std::collections::BTreeMap::new(),
        };
        let record = MetricsRecord {
            waiting_queue_size: waiting,
            running_requests_size: 1,
            kv_cache_usage: f64::from(waiting) / 10.0,
            update_time: scraped,
            ..MetricsRecord::default()
        };
        (Arc::new(Endpoint::new(spec, Slot::detached(0))), Arc::new(record))
    }

    fn page(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .expect("encodes");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn only_fresh_endpoints_count_and_gone_ones_disappear() {
        let registry = Registry::new();
        let mut metrics = PoolMetrics::register(&registry, "p", true).expect("registers");
        let now = Instant::now() + Duration::from_secs(100);
        let limit = Duration::from_secs(2);
        let old = now.checked_sub(Duration::from_secs(3));
        let members = vec![
            member("a", 1, Some(now)),
            member("b", 2, Some(now)),
            member("c", 4, Some(now)),
            member("old", 9, old),
            member("never", 0, None),
        ];
        metrics.update(&Snapshot::new(1, members), now, limit);
        let text = page(&registry);
        for line in [
            "llm_d_epp_average_queue_size{name=\"p\"} 2.33",
            "inference_pool_average_queue_size{name=\"p\"} 2.33",
            "llm_d_epp_std_dev_queue_size{name=\"p\"} 1.53",
            "llm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.23",
            "llm_d_epp_std_dev_kv_cache_utilization{name=\"p\"} 0.15",
            "llm_d_epp_average_running_requests{name=\"p\"} 1",
            "llm_d_epp_std_dev_running_requests{name=\"p\"} 0",
            "llm_d_epp_ready_endpoints{name=\"p\"} 3",
            "inference_pool_ready_pods{name=\"p\"} 3",
            "llm_d_epp_per_endpoint_queue_size{model_server_endpoint=\"old\",name=\"p\"} 9",
            "inference_pool_per_pod_queue_size{model_server_pod=\"c\",name=\"p\"} 4",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("never") && !text.contains("inference_pool_std_dev"));

        metrics.update(&Snapshot::new(2, vec![member("a", 1, old)]), now, limit);
        let text = page(&registry);
        assert!(
            text.contains("llm_d_epp_average_queue_size{name=\"p\"} 2.33"),
            "kept while nothing is fresh"
        );
        assert!(text.contains("llm_d_epp_ready_endpoints{name=\"p\"} 0"));
        assert!(!text.contains("\"c\"") && text.contains("model_server_endpoint=\"a\""));
    }

    #[test]
    fn deprecated_names_can_be_left_out() {
        let registry = Registry::new();
        let mut metrics = PoolMetrics::register(&registry, "p", false).expect("registers");
        let now = Instant::now();
        metrics.update(
            &Snapshot::new(1, vec![member("a", 1, Some(now))]),
            now,
            Duration::ZERO,
        );
        assert!(!page(&registry).contains("inference_pool"));
    }
}
