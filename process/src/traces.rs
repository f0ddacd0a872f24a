//! Span export by OpenTelemetry, configured by the SDK's environment variables.

use std::collections::HashMap;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, Registry};

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// Standard output (`OTEL_TRACES_EXPORTER=console`, upstream's default).
    Console,
    /// OTLP over gRPC without TLS, to this endpoint.
    Otlp(String),
    /// Nowhere.
    None,
}

/// Settings of span export, as llm-d-router reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `OTEL_TRACES_EXPORTER` and `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub exporter: Exporter,
    /// `OTEL_TRACES_SAMPLER_ARG`, 0..=1; the sampler is parent-based by ratio.
    pub ratio: f64,
    /// `OTEL_SERVICE_NAME`.
    pub service: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`: `k=v,k=v`.
    pub attributes: Vec<(String, String)>,
}

/// A variable that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}: {value:?} is not supported; use {expected}")]
pub struct SettingsError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Settings {
    /// Reads the settings through `lookup` (usually `std::env::var`).
    ///
    /// # Errors
    /// Names the variable and what it may be.
    pub fn read(service: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let refuse = |name, value: &str, expected| SettingsError {
            name,
            value: value.to_owned(),
            expected,
        };
        let endpoint =
            || lookup("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_else(|| "http://localhost:4317".to_owned());
        let exporter = match lookup("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("" | "console") => Exporter::Console,
            Some("otlp") => Exporter::Otlp(with_scheme(endpoint())),
            Some("none") => Exporter::None,
            Some(other) => return Err(refuse("OTEL_TRACES_EXPORTER", other, "console, otlp or none")),
        };
        if let Some(sampler) =
            lookup("OTEL_TRACES_SAMPLER").filter(|sampler| sampler != "parentbased_traceidratio")
        {
            return Err(refuse(
                "OTEL_TRACES_SAMPLER",
                &sampler,
                "parentbased_traceidratio",
            ));
        }
        let ratio = match lookup("OTEL_TRACES_SAMPLER_ARG") {
            None => 0.1,
            Some(text) => match text.parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => return Err(refuse("OTEL_TRACES_SAMPLER_ARG", &text, "a number from 0 to 1")),
            },
        };
        let attributes = lookup("OTEL_RESOURCE_ATTRIBUTES")
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Self {
            exporter,
            ratio,
            service: lookup("OTEL_SERVICE_NAME").unwrap_or_else(|| service.to_owned()),
            attributes,
        })
    }
}

fn with_scheme(endpoint: String) -> String {
    if endpoint.contains("://") {
        endpoint
    } else {
        format!("http://{endpoint}")
    }
}

/// Running export; dropping it flushes what is queued.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "spans were lost at shutdown");
        }
    }
}

/// The layer that turns `tracing` spans into exported ones; `None` when nothing is exported.
///
/// # Errors
/// When the exporter cannot be built.
#[allow(
    clippy::type_complexity,
    reason = "the pair is destructured at once by its only kind of caller"
)]
pub fn layer(
    settings: &Settings,
) -> Result<Option<(Export, Box<dyn Layer<Registry> + Send + Sync>)>, opentelemetry_otlp::ExporterBuildError>
{
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.ratio)));
    let attributes = settings
        .attributes
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder()
        .with_service_name(settings.service.clone())
        .with_attributes(attributes)
        .build();
    let builder = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_resource(resource);
    let provider = match &settings.exporter {
        Exporter::None => return Ok(None),
        Exporter::Console => builder
            .with_batch_exporter(opentelemetry_stdout::SpanExporter::default())
            .build(),
        Exporter::Otlp(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()?;
            builder.with_batch_exporter(exporter).build()
        }
    };
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("llmd"));
    Ok(Some((Export(provider), Box::new(layer.with_filter(own_spans())))))
}

/// Our crates' spans: libraries, HTTP/2 first of all, make dozens for each request.
fn own_spans() -> Targets {
    Targets::new().with_target("llmd", LevelFilter::INFO)
}

/// Makes `span` a child of the W3C trace context (`traceparent`, `tracestate`) that `header` finds.
pub fn follow<'a>(span: &Span, header: impl Fn(&str) -> Option<&'a str>) {
    let fields = ["traceparent", "tracestate"];
    let found = fields
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), header(name)?.to_owned())));
    let found: HashMap<String, String> = found.collect();
    if found.contains_key(fields[0]) {
        // An error means that nobody exports this span.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&found));
    }
}

/// Whether `span` will be exported: what it costs to tell more about it is worth it.
pub fn is_sampled(span: &Span) -> bool {
    use opentelemetry::trace::TraceContextExt as _;
    !span.is_disabled() && span.context().span().span_context().is_sampled()
}

/// The W3C headers that make the next hop a child of `span`; none when nobody exports it.
pub fn headers_of(span: &Span) -> impl Iterator<Item = (String, String)> + use<> {
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
    headers.into_iter().filter(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::read("llm-d-epp", |name| {
            pairs
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn the_next_hop_continues_the_trace_of_the_caller() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            let span = tracing::info_span!("hop");
            let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            follow(&span, |name| (name == "traceparent").then_some(caller));
            let headers: HashMap<String, String> = headers_of(&span).collect();
            let parent = &headers["traceparent"];
            assert!(
                parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
                "{parent}"
            );
            assert!(
                !parent.contains("b7ad6b7169203331"),
                "the span has its own id: {parent}"
            );
        });
    }

    #[test]
    fn a_span_that_nobody_exports_has_no_headers() {
        let span = tracing::info_span!("hop");
        follow(&span, |_| None);
        assert_eq!(headers_of(&span).count(), 0);
    }

    #[test]
    fn spans_of_libraries_are_not_exported() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let settings = read(&[("OTEL_TRACES_SAMPLER_ARG", "0")]).unwrap();
        let (_export, layer) = layer(&settings).unwrap().unwrap();
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            assert!(!tracing::info_span!(target: "llmd_epp::extproc", "gateway.request").is_disabled());
            assert!(tracing::info_span!(target: "h2::proto::streams", "reserve_capacity").is_disabled());
        });
    }

    #[test]
    fn defaults_are_upstreams() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.exporter, Exporter::Console);
        assert_eq!((settings.ratio, settings.service.as_str()), (0.1, "llm-d-epp"));
    }

    #[test]
    fn an_otlp_endpoint_gets_its_scheme_and_attributes_are_split() {
        let settings = read(&[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=a, x=y"),
        ])
        .unwrap();
        assert_eq!(settings.exporter, Exporter::Otlp("http://collector:4317".into()));
        assert_eq!(
            settings.attributes,
            [("k8s.pod.name".into(), "a".into()), ("x".into(), "y".into())]
        );
    }

    #[test]
    fn what_cannot_be_obeyed_is_named() {
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            assert!(
                read(&[(name, value)]).unwrap_err().to_string().contains(name),
                "{name}"
            );
        }
    }
}
