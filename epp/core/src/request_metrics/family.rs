//! Metric families that come with a deprecated twin, and handles that feed both.

use std::sync::OnceLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::MODELS;
use crate::metrics::{PREFIX, twin_help};

/// A series that is made with its first observation.
#[derive(Debug)]
pub(super) struct Lazy<T>(OnceLock<T>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Lazy<T> {
    pub(super) fn get(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

/// A twin's name and which of the family's labels it has, by index.
type Twin<'a> = Option<(&'a str, &'a [usize])>;

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), format!("[ALPHA] {help}"))
}

fn twin_opts(old: &str, name: &str, help: &str) -> Opts {
    let help = twin_help(&format!("{PREFIX}{name}"), help);
    Opts::new(format!("inference_objective_{old}"), help)
}

fn select<'a>(values: &[&'a str], indices: &[usize]) -> Vec<&'a str> {
    indices.iter().map(|index| values[*index]).collect()
}

#[derive(Debug)]
pub(super) struct Counters {
    main: IntCounterVec,
    twin: Option<(IntCounterVec, Vec<usize>)>,
}

/// A counter and its twin.
#[derive(Debug)]
pub(super) struct Counter(prometheus::IntCounter, Option<prometheus::IntCounter>);

impl Counter {
    pub(super) fn inc(&self) {
        self.0.inc();
        if let Some(twin) = &self.1 {
            twin.inc();
        }
    }
}

impl Counters {
    pub(super) fn register(
        registry: &Registry,
        (name, labels): (&str, &[&str]),
        twin: Twin<'_>,
        help: &str,
    ) -> Result<Self, prometheus::Error> {
        let main = IntCounterVec::new(opts(name, help), labels)?;
        registry.register(Box::new(main.clone()))?;
        let twin = match twin {
            Some((old, indices)) => {
                let vec = IntCounterVec::new(twin_opts(old, name, help), &select(labels, indices))?;
                registry.register(Box::new(vec.clone()))?;
                Some((vec, indices.to_vec()))
            }
            None => None,
        };
        Ok(Self { main, twin })
    }

    pub(super) fn with(&self, values: &[&str]) -> Counter {
        let twin = self
            .twin
            .as_ref()
            .map(|(vec, indices)| vec.with_label_values(&select(values, indices)));
        Counter(self.main.with_label_values(values), twin)
    }
}

#[derive(Debug)]
pub(super) struct Gauges {
    main: IntGaugeVec,
    twin: Option<(IntGaugeVec, Vec<usize>)>,
}

/// A gauge and its twin.
#[derive(Debug)]
pub(super) struct Gauge(prometheus::IntGauge, Option<prometheus::IntGauge>);

impl Gauge {
    pub(super) fn add(&self, delta: i64) {
        self.0.add(delta);
        if let Some(twin) = &self.1 {
            twin.add(delta);
        }
    }
}

impl Gauges {
    pub(super) fn register(
        registry: &Registry,
        (name, labels): (&str, &[&str]),
        twin: Twin<'_>,
        help: &str,
    ) -> Result<Self, prometheus::Error> {
        let main = IntGaugeVec::new(opts(name, help), labels)?;
        registry.register(Box::new(main.clone()))?;
        let twin = match twin {
            Some((old, indices)) => {
                let vec = IntGaugeVec::new(twin_opts(old, name, help), &select(labels, indices))?;
                registry.register(Box::new(vec.clone()))?;
                Some((vec, indices.to_vec()))
            }
            None => None,
        };
        Ok(Self { main, twin })
    }

    pub(super) fn with(&self, values: [&str; 4]) -> Gauge {
        let twin = self
            .twin
            .as_ref()
            .map(|(vec, indices)| vec.with_label_values(&select(&values, indices)));
        Gauge(self.main.with_label_values(&values), twin)
    }
}

#[derive(Debug)]
pub(super) struct Histograms {
    main: HistogramVec,
    twin: Option<HistogramVec>,
}

/// A histogram and its twin.
#[derive(Debug)]
pub(super) struct Histogram(prometheus::Histogram, Option<prometheus::Histogram>);

impl Histogram {
    pub(super) fn observe(&self, value: f64) {
        self.0.observe(value);
        if let Some(twin) = &self.1 {
            twin.observe(value);
        }
    }
}

impl Histograms {
    /// The twin of a histogram is labelled by model and target model only.
    pub(super) fn register(
        registry: &Registry,
        (name, labels, buckets): (&str, &[&str], &[f64]),
        twin: Option<&str>,
        help: &str,
    ) -> Result<Self, prometheus::Error> {
        let vec = |opts: Opts, labels: &[&str]| {
            let opts: HistogramOpts = opts.into();
            let vec = HistogramVec::new(opts.buckets(buckets.to_vec()), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            main: vec(opts(name, help), labels)?,
            twin: twin
                .map(|old| vec(twin_opts(old, name, help), &MODELS))
                .transpose()?,
        })
    }

    pub(super) fn with(&self, values: &[&str]) -> Histogram {
        let twin = self
            .twin
            .as_ref()
            .map(|vec| vec.with_label_values(&values[..MODELS.len()]));
        Histogram(self.main.with_label_values(values), twin)
    }
}
