//! One trace from the caller to both engines, with upstream's names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use llmd_process::traces::{Exporter, Settings, layer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::Sidecar;
use crate::engine::{Engine, request, send};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps the sidecar's spans.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Seen>>>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if !metadata.target().starts_with("llmd_sidecar") {
            return;
        }
        let span = context.span(id).expect("new");
        let mut seen = Seen {
            name: metadata.name(),
            parent: span.parent().map(|parent| parent.name()),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.0.lock().expect("kept").insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().expect("kept").get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }
}

#[tokio::test]
async fn both_engines_continue_the_callers_trace() {
    let settings = Settings {
        // Nobody listens there; what is looked at is told to `Spans`.
        exporter: Exporter::Otlp("http://127.0.0.1:1".to_owned()),
        ratio: 1.0,
        service: "test".to_owned(),
        attributes: Vec::new(),
    };
    let (export, layer) = layer(&settings).expect("built").expect("exports");
    // Its end would wait for a receiver.
    let _export = std::mem::ManuallyDrop::new(export);
    let spans = Spans::default();
    let _default = tracing::subscriber::set_default(Registry::default().with(layer).with(spans.clone()));

    let prefill = Engine::saying(200, r#"{"kv_transfer_params":{"remote_host":"a"}}"#).await;
    let decode = Engine::saying(200, "{}").await;
    let sidecar = Sidecar::start("--tracing", &[decode.address]).await;
    let headers = [
        ("x-prefiller-host-port", prefill.address.to_string()),
        ("traceparent", CALLER.to_owned()),
        ("x-request-id", "request-1".to_owned()),
    ];
    let (status, ..) = send(
        sidecar.addresses[0],
        request("/v1/completions", &headers, "{\"prompt\":\"p\"}"),
    )
    .await;
    assert_eq!(status, 200);

    let parents = [&prefill, &decode].map(|engine| {
        let parent = engine.got()[0].header("traceparent").expect("traced").to_owned();
        assert!(parent.starts_with(&CALLER[..36]), "{parent}");
        parent
    });
    assert_ne!(parents[0], parents[1], "each leg has a span of its own");
    assert!(!parents.iter().any(|parent| parent == CALLER));

    let told = "llm_d.pd_proxy.total_duration_ms";
    let all = || {
        spans
            .0
            .lock()
            .expect("kept")
            .values()
            .cloned()
            .collect::<Vec<_>>()
    };
    crate::until("the request's end", || {
        all().iter().any(|span| span.fields.contains_key(told))
    })
    .await;
    let span = |name: &str| {
        let found: Vec<_> = all().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", all());
        found[0].clone()
    };
    let (root, leg, main) = (span("forward_request"), span("prefill"), span("decode"));
    assert_eq!(
        (leg.parent, main.parent),
        (Some("forward_request"), Some("forward_request"))
    );
    let target = prefill.address.to_string();
    for (span, name, value) in [
        (&root, "llm_d.pd_proxy.connector", "nixlv2"),
        (&root, "llm_d.pd_proxy.request_path", "/v1/completions"),
        (&root, "llm_d.pd_proxy.disaggregation_used", "true"),
        (&root, "llm_d.pd_proxy.prefill_target", &target),
        (&leg, "llm_d.pd_proxy.prefill_target", &target),
        (&leg, "llm_d.pd_proxy.prefill.status_code", "200"),
        (&leg, "llm_d.pd_proxy.request_id", "request-1"),
        (&main, "llm_d.pd_proxy.request_id", "request-1"),
        (&main, "llm_d.pd_proxy.decode.streaming", "false"),
    ] {
        assert_eq!(span.fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    for name in [
        "true_ttft_ms",
        "prefill_duration_ms",
        "decode_duration_ms",
        "coordinator_overhead_ms",
    ] {
        let name = format!("llm_d.pd_proxy.{name}");
        assert!(root.fields.contains_key(name.as_str()), "{name}: {root:?}");
    }
}
