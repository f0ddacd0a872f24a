//! Objectives and model rewrites reach the request.

use crate::traffic::{Rewrite, RewriteRule, RewriteTarget};

use super::*;

const BODY: &[u8] = br#"{"model":"chat","messages":[{"role":"user","content":"x"}]}"#;

fn rules() -> TrafficRules {
    let target = RewriteTarget {
        model: "qwen-lora".into(),
        weight: None,
    };
    let rule = RewriteRule {
        models: vec!["chat".into()],
        targets: vec![target],
    };
    let rewrite = Rewrite {
        created: 0,
        name: "r".into(),
        rules: vec![rule],
    };
    TrafficRules::new([("premium".into(), 7)], vec![rewrite])
}

#[test]
fn a_rule_splices_the_target_and_comes_before_the_rewrite_header() {
    let world = world(1);
    world.epp.set_traffic_rules(rules());
    let headers = [(":path", "/v1/chat/completions"), (":method", "POST")];
    let mut plain = world.open(&headers);
    let routed = world.route(&mut plain, BODY).expect("routed");
    let (span, target) = routed.model_splice.expect("a splice");
    assert_eq!(
        (&BODY[span.start..span.end], &*target),
        (&br#""chat""#[..], "qwen-lora")
    );

    let mut all = headers.to_vec();
    all.push((header::MODEL_NAME_REWRITE, "by-header"));
    let mut ruled = world.open(&all);
    let routed = world.route(&mut ruled, BODY).expect("routed");
    assert_eq!(&*routed.model_splice.expect("a splice").1, "qwen-lora");

    let mut other = world.open(&all);
    let body = br#"{"model":"other","messages":[{"role":"user","content":"x"}]}"#;
    let routed = world.route(&mut other, body).expect("routed");
    assert_eq!(&*routed.model_splice.expect("a splice").1, "by-header");
    let by_rule = [
        ("model_rewrite_name", "r"),
        ("model_name", "chat"),
        ("target_model", "qwen-lora"),
    ];
    for prefix in ["llm_d_epp", "inference_extension"] {
        let family = format!("{prefix}_model_rewrite_decisions_total");
        assert_eq!(world.metric(&family, &by_rule), 2.0, "{family}");
        assert_eq!(world.metric(&family, &[]), 2.0, "a header is no rule");
    }
}

#[test]
fn the_objective_header_gives_the_priority_and_its_label() {
    let world = world(1);
    world.epp.set_traffic_rules(rules());
    let headers = [(":path", "/v1/chat/completions"), (":method", "POST")];
    for (objective, priority) in [(Some("premium"), 7), (Some("unknown"), 0), (None, 0)] {
        let mut all = headers.to_vec();
        all.extend(objective.map(|name| (header::OBJECTIVE, name)));
        let mut exchange = world.open(&all);
        world.route(&mut exchange, BODY).expect("routed");
        let request = exchange.request().expect("parsed");
        assert_eq!(request.objective.priority, priority, "{objective:?}");
    }
    let page = prometheus::TextEncoder::new()
        .encode_to_string(&world.registry.gather())
        .expect("encodes");
    let line = r#"llm_d_epp_request_total{fairness_id="default-flow",model_name="chat",priority="7",target_model_name="qwen-lora"} 1"#;
    assert!(page.contains(line), "{page}");
}
