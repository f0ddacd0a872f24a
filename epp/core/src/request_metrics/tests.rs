use prometheus::{Encoder, TextEncoder};

use super::*;

fn page(registry: &Registry) -> String {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .expect("encodes");
    String::from_utf8(text).expect("text")
}

const LABELS: RequestLabels<'_> = RequestLabels {
    model: "m",
    target: "t",
    fairness_id: "default-flow",
    priority: 0,
};

fn usage() -> Usage {
    Usage {
        prompt: 7,
        completion: 11,
        total: 18,
        cached: 2,
    }
}

#[test]
fn a_streamed_request_fills_every_family_and_its_twin() {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, true, "c0ffee", "v1").expect("registers");
    let recorder = metrics.of(&LABELS);
    recorder.routed(100);
    recorder.inter_token(Duration::from_millis(20));
    recorder.completed(&Completed {
        duration: Duration::from_secs(3),
        ttft: Some(Duration::from_secs(1)),
        streaming: true,
        bytes: Some(900),
        usage: usage(),
    });
    recorder.left();
    metrics.request_processed(Duration::from_millis(1));
    metrics.response_processed(Duration::from_millis(1));
    insta::assert_snapshot!(
        page(&registry)
            .lines()
            .filter(|line| !line.contains("_bucket{") && !line.starts_with("# TYPE"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn series_appear_with_their_first_observation() {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, false, "", "").expect("registers");
    metrics.of(&LABELS).failed("BadRequest");
    let text = page(&registry);
    assert!(
        text.contains("llm_d_epp_request_error_total{error_code=\"BadRequest\""),
        "{text}"
    );
    assert!(!text.contains("request_duration_seconds_count"), "{text}");
    assert!(!text.contains("inference_objective"), "{text}");
}

#[test]
fn upstreams_bucket_of_32778_is_kept_and_bounds_end_where_upstreams_end() {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, false, "", "").expect("registers");
    let recorder = metrics.of(&LABELS);
    recorder.routed(1);
    recorder.completed(&Completed {
        duration: Duration::from_secs(1),
        ttft: None,
        streaming: false,
        bytes: Some(1),
        usage: usage(),
    });
    let text = page(&registry);
    let last_bound = |family: &str| {
        let prefix = format!("llm_d_epp_{family}_bucket{{");
        let bounds = text.lines().filter(|line| line.starts_with(&prefix));
        let mut finite = bounds.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next());
        finite
            .rfind(|bound| *bound != "+Inf")
            .expect("a bound")
            .to_owned()
    };
    assert!(text.contains("llm_d_epp_request_input_tokens_bucket"));
    assert!(text.contains("le=\"32778\""));
    assert_eq!(last_bound("request_output_tokens"), "8192");
    assert_eq!(last_bound("response_size_bytes"), "65536");
    assert_eq!(last_bound("request_size_bytes"), "1073741824");
    assert_eq!(last_bound("request_ttft_seconds"), "120");
    assert_eq!(last_bound("request_duration_seconds"), "3600");
}

#[test]
fn names_beyond_the_cap_become_other() {
    let registry = Registry::new();
    let metrics = RequestMetrics::register(&registry, false, "", "").expect("registers");
    for index in 0..1100 {
        let model = format!("model-{index}");
        metrics
            .of(&RequestLabels {
                model: &model,
                target: &model,
                ..LABELS
            })
            .routed(1);
    }
    let text = page(&registry);
    let named = text
        .lines()
        .filter(|line| line.starts_with("llm_d_epp_request_total{"));
    let (other, named): (Vec<_>, Vec<_>) = named.partition(|line| line.contains("model_name=\"other\""));
    assert_eq!((named.len(), other.len()), (1000, 1));
    assert!(other[0].ends_with(" 100"), "{other:?}");

    metrics.keep_models(["of-a-rule"].into_iter());
    let kept = RequestLabels {
        model: "of-a-rule",
        target: "of-a-rule",
        ..LABELS
    };
    metrics.of(&kept).routed(1);
    assert!(page(&registry).contains("model_name=\"of-a-rule\""));
}

#[test]
fn the_same_labels_share_one_recorder() {
    let metrics = RequestMetrics::register(&Registry::new(), false, "", "").expect("registers");
    assert!(Arc::ptr_eq(&metrics.of(&LABELS), &metrics.of(&LABELS)));
}
