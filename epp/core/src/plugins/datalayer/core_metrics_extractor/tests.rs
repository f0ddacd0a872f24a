//! Pages of the built-in engines, the rules one by one, and equality with a naive full parser.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const VLLM: &str = include_str!("../../../../testdata/vllm.prom");
/// Recorded from vLLM 0.32 after a benchmark (see `sim/tests/trace/record.py`).
const VLLM_RECORDED: &str = include_str!("../../../../../../sim/tests/trace/vllm-0.32-metrics.txt");
const SGLANG: &str = include_str!("../../../../testdata/sglang.prom");

fn extractor(yaml: &str) -> CoreMetricsExtractor {
    CoreMetricsExtractor::new(&serde_yaml::from_str(yaml).expect("parameters")).expect("valid")
}

fn labelled(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

struct Read {
    record: MetricsRecord,
    updated: bool,
    failures: u32,
    first: Option<String>,
}

fn read_into(extractor: &CoreMetricsExtractor, engine: &str, page: &str, mut record: MetricsRecord) -> Read {
    let engine = extractor.engine_of(&labelled(ENGINE_LABEL, engine));
    let extracted = extractor.extract(
        engine,
        page.as_bytes(),
        Instant::now(),
        &mut Scratch::default(),
        &mut record,
    );
    Read {
        updated: extracted.updated,
        failures: extracted.failures,
        first: extracted.first_failure.map(|failure| failure.to_string()),
        record,
    }
}

fn read(extractor: &CoreMetricsExtractor, engine: &str, page: &str) -> Read {
    read_into(extractor, engine, page, MetricsRecord::default())
}

fn names(map: &BTreeMap<String, u32>) -> Vec<&str> {
    map.iter()
        .map(|(name, value)| (*value == 0).then_some(name.as_str()).expect("value 0"))
        .collect()
}

#[test]
fn a_vllm_page_gives_every_field() {
    let Read {
        record,
        updated,
        failures,
        first,
    } = read(&extractor("{}"), "vllm", VLLM);
    assert_eq!((updated, failures, first), (true, 0, None));
    assert_eq!((record.waiting_queue_size, record.running_requests_size), (2, 3));
    assert!((record.kv_cache_usage - 0.0361).abs() < 1e-12);
    assert_eq!((record.cache_block_size, record.cache_num_blocks), (16, 27_897));
    assert_eq!(record.kv_cache_max_token_capacity, 16 * 27_897);
    assert_eq!(names(&record.active_models), ["chat", "sql"]);
    assert_eq!(names(&record.waiting_models), ["code"]);
    assert_eq!(record.max_active_models, 4);
    assert_eq!(record.prefix_hit_rate, Some(0.75));
    assert!(record.update_time.is_some());
}

#[test]
fn a_recorded_vllm_page_is_read_without_a_failure() {
    let own = extractor("{}");
    let Read {
        record,
        failures,
        first,
        ..
    } = read(&own, "vllm", VLLM_RECORDED);
    assert_eq!((failures, first), (0, None));
    assert_eq!((record.waiting_queue_size, record.running_requests_size), (0, 0));
    assert_eq!((record.cache_block_size, record.cache_num_blocks), (32, 513));
    assert_eq!(record.prefix_hit_rate, Some(131_936.0 / 732_528.0));
}

#[test]
fn sglang_reads_gauges_and_the_older_labels() {
    let Read { record, failures, .. } = read(&extractor("{}"), "sglang", SGLANG);
    assert_eq!(failures, 0);
    assert_eq!((record.waiting_queue_size, record.running_requests_size), (4, 7));
    assert_eq!((record.cache_block_size, record.cache_num_blocks), (64, 512));
    assert_eq!(record.prefix_hit_rate, Some(0.25));

    let cut = SGLANG.find("# HELP sglang:page_size").expect("present");
    let old = format!(
        "{}# TYPE sglang:cache_config_info gauge\nsglang:cache_config_info{{page_size=\"1\",num_pages=\"9\"}} 1\n",
        &SGLANG[..cut]
    );
    let Read { record, failures, .. } = read(&extractor("{}"), "sglang", &old);
    assert_eq!(
        (failures, record.cache_block_size, record.cache_num_blocks),
        (0, 1, 9)
    );

    let neither = read(&extractor("{}"), "sglang", &SGLANG[..cut]);
    assert_eq!((neither.updated, neither.failures), (true, 1));
}

#[test]
fn tensorrt_engines_select_series_by_label() {
    let page = "# TYPE nv_trt_llm_request_metrics gauge\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\"} 5\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\"} 6\n\
        # TYPE nv_trt_llm_kv_cache_block_metrics gauge\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 100\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 32\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.5\n";
    let Read { record, failures, .. } = read(&extractor("{}"), "triton-tensorrt-llm", page);
    assert_eq!(failures, 0);
    assert_eq!((record.waiting_queue_size, record.running_requests_size), (6, 5));
    assert_eq!((record.cache_block_size, record.cache_num_blocks), (32, 100));
    assert!((record.kv_cache_usage - 0.5).abs() < 1e-12);

    let page = "# TYPE trtllm_num_requests_waiting gauge\ntrtllm_num_requests_waiting 1\n";
    let partial = read(&extractor("{}"), "trtllm-serve", page);
    assert_eq!(
        (
            partial.record.waiting_queue_size,
            partial.updated,
            partial.failures
        ),
        (1, true, 4)
    );
    assert_eq!(
        partial.first.as_deref(),
        Some("runningRequestsSpec 'trtllm_num_requests_running': the page has no such metric family")
    );

    let page = "# TYPE nv_inference_pending_request_count gauge\nnv_inference_pending_request_count 3\n\
                # TYPE nv_inference_exec_count counter\nnv_inference_exec_count 8\n";
    let triton = read(&extractor("{}"), "triton", page);
    assert_eq!(
        (
            triton.record.waiting_queue_size,
            triton.record.running_requests_size,
            triton.failures
        ),
        (3, 8, 0)
    );
}

#[test]
fn the_engine_comes_from_the_label_then_the_old_label_then_the_default() {
    let built_in = extractor("{}");
    let name = |extractor: &CoreMetricsExtractor, labels| {
        extractor.engine_name(extractor.engine_of(&labels)).to_string()
    };
    assert_eq!(name(&built_in, labelled(ENGINE_LABEL, "sglang")), "sglang");
    assert_eq!(
        name(&built_in, labelled(ENGINE_LABEL_DEPRECATED, "triton")),
        "triton"
    );
    assert_eq!(name(&built_in, labelled(ENGINE_LABEL, "what")), "vllm");
    assert_eq!(name(&built_in, BTreeMap::new()), "vllm");
    let own = extractor("{engineLabelKey: kind, defaultEngine: mine, engineConfigs: [{name: mine}]}");
    assert_eq!(name(&own, labelled("kind", "sglang")), "sglang");
    assert_eq!(name(&own, labelled(ENGINE_LABEL, "sglang")), "mine");
}

#[test]
fn a_configured_engine_replaces_the_built_in_one() {
    let own = extractor(
        "{engineConfigs: [{name: vllm, queuedRequestsSpec: 'q{p=\"x\"}', customMetrics: [{attributeKey: heat, metricSpec: h}]}]}",
    );
    let page = "# TYPE q gauge\nq{p=\"y\"} 1\nq{p=\"x\"} 2\n# TYPE h counter\nh 1.5\n";
    let Read { record, failures, .. } = read(&own, "vllm", page);
    assert_eq!((record.waiting_queue_size, failures), (2, 0));
    assert_eq!(record.custom, [(Arc::from("heat"), 1.5)]);
    let again = read_into(&own, "vllm", "# TYPE h gauge\nh 2\n", record);
    assert_eq!(
        (
            again.record.custom[0].1,
            again.failures,
            again.record.waiting_queue_size
        ),
        (2.0, 1, 2)
    );
}

#[test]
fn wrong_parameters_name_the_field() {
    for (yaml, expected) in [
        ("{engineConfigs: [{}]}", "engineConfigs[0].name must not be empty"),
        (
            "{engineConfigs: [{name: default}]}",
            "engineConfigs[0].name must not be 'default'",
        ),
        (
            "{engineConfigs: [{name: a}, {name: a}]}",
            "engineConfigs[1].name 'a' is used twice",
        ),
        (
            "{engineConfigs: [{name: a, kvUsageSpec: 'x{'}]}",
            "engineConfigs[0].kvUsageSpec: metric spec 'x{' is invalid",
        ),
        (
            "{engineConfigs: [{name: a, customMetrics: [{metricSpec: x}]}]}",
            "attributeKey '' must be set and unique",
        ),
        (
            "{defaultEngine: llama}",
            "defaultEngine 'llama' is not an engine; known engines: vllm, sglang",
        ),
    ] {
        let parameters = serde_yaml::from_str(yaml).expect(yaml);
        let error = CoreMetricsExtractor::new(&parameters)
            .expect_err(yaml)
            .to_string();
        assert!(
            error.starts_with(expected) || error.contains(expected),
            "{yaml}: {error}"
        );
    }
    assert!(serde_yaml::from_str::<Parameters>("{engineConfig: []}").is_err());
}

fn one(spec: &str, page: &str) -> (f64, u32) {
    let quoted = spec.replace('\'', "''");
    let own = extractor(&format!(
        "{{engineConfigs: [{{name: vllm, kvUsageSpec: '{quoted}'}}]}}"
    ));
    let Read { record, failures, .. } = read(&own, "vllm", page);
    (record.kv_cache_usage, failures)
}

#[test]
fn the_series_with_the_greatest_timestamp_wins_and_the_first_of_equals() {
    assert_eq!(one("m", "# TYPE m gauge\nm{a=\"1\"} 1\nm{a=\"2\"} 2\n"), (1.0, 0));
    assert_eq!(
        one(
            "m",
            "# TYPE m gauge\nm{a=\"1\"} 1 10\nm{a=\"2\"} 2 30\nm{a=\"3\"} 3 20\n"
        ),
        (2.0, 0)
    );
}

#[test]
fn only_gauges_and_counters_have_values() {
    assert_eq!(one("m", "# TYPE m counter\nm 3\n"), (3.0, 0));
    assert_eq!(one("m", "# TYPE m untyped\nm 3\n"), (0.0, 0));
    assert_eq!(one("m", "m 3\n"), (0.0, 0));
    assert_eq!(
        one(
            "m",
            "# TYPE m histogram\nm_bucket{le=\"1\"} 3\nm_sum 1\nm_count 3\n"
        ),
        (0.0, 0)
    );
    assert_eq!(one("m", "# TYPE m gauge\nm_sum 3\n"), (0.0, 1));
    assert_eq!(one("m", "# TYPE m gauge\nm NaN\n"), (0.0, 1));
}

#[test]
fn labels_are_compared_unescaped_and_braces_in_quotes_are_text() {
    let page = "# TYPE m gauge\nm{a=\"}\\\"{\",b=\"x\"} 1\nm{ a = \"q\\\\n\" , b=\"y\", } 2\n";
    assert_eq!(one("m{b=x}", page), (1.0, 0));
    assert_eq!(one("m{a=\"q\\n\"}", page), (2.0, 0));
    assert_eq!(one("m{b=z}", page), (0.0, 1));
}

#[test]
fn malformed_and_lookalike_lines_are_passed_over() {
    let page = "\n# TYPE m gauge\nm{a=\"1} 9\nm 1 2 3\nm x\nmm 7\nm:n 8\nm{a=\"1\"}\n# EOF\n  m\t4\n";
    assert_eq!(one("m", page), (4.0, 0));
    assert_eq!(one("m", "# TYPE m gauge\nm 5"), (5.0, 0));
}

#[test]
fn a_bad_label_counts_once_and_the_rest_is_read() {
    let page = VLLM.replace("num_gpu_blocks=\"27897\"", "num_gpu_blocks=\"None\"");
    let Read {
        record,
        updated,
        failures,
        first,
    } = read(&extractor("{}"), "vllm", &page);
    assert_eq!(
        (
            updated,
            failures,
            record.cache_block_size,
            record.cache_num_blocks
        ),
        (true, 1, 16, 0)
    );
    assert_eq!(
        first.as_deref(),
        Some("cacheInfoSpec 'vllm:cache_config_info': a label is not an integer")
    );
}

#[test]
fn a_page_without_anything_leaves_the_record_and_its_age() {
    let before = read(&extractor("{}"), "vllm", VLLM).record;
    let after = read_into(&extractor("{}"), "vllm", "", before.clone());
    assert_eq!((after.updated, after.failures), (false, 4));
    assert_eq!(after.record, before);
}

/// Every sample of a page, read the slow way.
fn naive(page: &str) -> Vec<(String, BTreeMap<String, String>, f64, i64)> {
    let mut kinds = BTreeMap::new();
    let mut samples = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("kind");
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let mut chars = line.chars().peekable();
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !" {".contains(*c)) {
            name.push(c);
        }
        let mut labels = BTreeMap::new();
        if chars.next_if_eq(&'{').is_some() {
            while chars.next_if_eq(&'}').is_none() {
                let mut key = String::new();
                while let Some(c) = chars.next_if(|c| *c != '=') {
                    key.push(c);
                }
                chars.next();
                chars.next();
                let mut value = String::new();
                loop {
                    match chars.next().expect("closed") {
                        '"' => break,
                        '\\' => value.push(match chars.next().expect("escape") {
                            'n' => '\n',
                            other => other,
                        }),
                        other => value.push(other),
                    }
                }
                chars.next_if_eq(&',');
                labels.insert(key, value);
            }
        }
        let rest: String = chars.collect();
        let mut tokens = rest.split_whitespace();
        let value: f64 = tokens.next().expect("value").parse().expect("number");
        let timestamp = tokens.next().map_or(0, |token| token.parse().expect("timestamp"));
        let scalar = matches!(kinds.get(&name).map(String::as_str), Some("gauge" | "counter"));
        samples.push((name, labels, if scalar { value } else { 0.0 }, timestamp));
    }
    samples
}

const FAMILIES: [&str; 6] = ["a", "ab", "a:b", "b_c", "abc", "a_b"];

fn page() -> impl Strategy<Value = String> {
    let label = ("[xy]", r#"[pq"\\}{, \n]{0,3}"#);
    let sample = (
        prop::sample::select(&FAMILIES[..]),
        prop::collection::btree_map(label.0, label.1, 0..3),
        0_u32..1000,
        prop::option::of(-3_i64..4),
    );
    let kinds = prop::collection::vec(
        prop::sample::select(&["gauge", "counter", "untyped"][..]),
        FAMILIES.len(),
    );
    (kinds, prop::collection::vec(sample, 0..30)).prop_map(|(kinds, samples)| {
        let mut page = String::new();
        for (family, kind) in FAMILIES.iter().zip(kinds) {
            let _ = writeln!(page, "# HELP {family} a {{ \" b\n# TYPE {family} {kind}");
        }
        for (family, labels, value, timestamp) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(key, value)| {
                    let value = value
                        .replace('\\', "\\\\")
                        .replace('"', "\\\"")
                        .replace('\n', "\\n");
                    format!("{key}=\"{value}\"")
                })
                .collect();
            let section = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let timestamp = timestamp.map_or(String::new(), |at| format!(" {at}"));
            let _ = writeln!(page, "{family}{section} {value}{timestamp}");
        }
        page
    })
}

proptest! {
    #[test]
    fn equals_a_naive_full_parser(page in page()) {
        let specs = ["a", "ab{x=p}", "a:b{x=\"\"}", "b_c{y=q}", "abc", "a_b{x=pq,y=p}"];
        let custom: Vec<String> =
            specs.iter().map(|spec| format!("{{attributeKey: '{spec}', metricSpec: '{spec}'}}")).collect();
        let own = extractor(&format!("{{engineConfigs: [{{name: vllm, customMetrics: [{}]}}]}}", custom.join(",")));
        let Read { record, updated, failures, .. } = read(&own, "vllm", &page);

        let all = naive(&page);
        let mut expected = Vec::new();
        for text in specs {
            let spec = spec::Spec::parse(text).expect("valid").expect("not empty");
            let mut best: Option<(f64, i64)> = None;
            for (name, labels, value, timestamp) in &all {
                let fits = *name == spec.family && spec.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
                if fits && best.is_none_or(|(_, at)| *timestamp > at) {
                    best = Some((*value, *timestamp));
                }
            }
            if let Some((value, _)) = best {
                expected.push((Arc::<str>::from(text), value));
            }
        }
        prop_assert_eq!(updated, !expected.is_empty());
        prop_assert_eq!(failures as usize, specs.len() - expected.len());
        prop_assert_eq!(record.custom, expected);
    }

    #[test]
    fn any_bytes_are_survived(page in prop::collection::vec(prop::sample::select(&b"vllm:num_requests_waiting{}\"\\=,# TYPE\n 1gauge"[..]), 0..400)) {
        let extractor = extractor("{}");
        let mut record = MetricsRecord::default();
        let engine = extractor.engine_of(&BTreeMap::new());
        extractor.extract(engine, &page, Instant::now(), &mut Scratch::default(), &mut record);
    }
}
