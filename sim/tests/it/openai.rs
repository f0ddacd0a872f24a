//! Answers, streams, counts and refusals of the OpenAI surface.

use llmd_sim::args::Mode;
use serde_json::{Value, json};

use super::client::{events, get, post, send, start, text, wait_for_metric};

fn content(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_chat_streams_the_text_of_the_whole_answer_with_usage() {
    let simulator = start(|_| {}).await;
    let mut request =
        json!({"model": "m", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 12});
    let (status, whole) = post(&simulator, "/v1/chat/completions", &request).await;
    assert_eq!(status, 200, "{whole}");
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let events = events(&simulator, "/v1/chat/completions", &request).await;
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(
        content(&events),
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert_eq!(events.len(), 1 + 12 + 1, "role, one event per token, usage");
    let (last_token, usage) = (&events[12], &events[13]);
    assert_eq!(last_token["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 12);
    assert_eq!(usage["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(usage["object"], "chat.completion.chunk");
}

#[tokio::test]
async fn continuous_usage_grows_by_one_per_event() {
    let simulator = start(|_| {}).await;
    let request = json!({"model": "m", "prompt": "a b c", "max_tokens": 4, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let events = events(&simulator, "/v1/completions", &request).await;
    let counts: Vec<_> = events
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 2, 3, 4, 4]);
}

#[tokio::test]
async fn echo_says_the_last_user_message_and_seeds_repeat() {
    let simulator = start(|args| args.mode = Mode::Echo).await;
    let messages = json!([{"role": "user", "content": "first"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "Tell me, \"please\"!"}]}]);
    let (_, answer) = post(
        &simulator,
        "/v1/chat/completions",
        &json!({"model": "m", "messages": messages}),
    )
    .await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Tell me, \"please\"!");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let simulator = start(|_| {}).await;
    let ask =
        |seed: u64| json!({"model": "m", "prompt": "p", "max_tokens": 16, "seed": seed, "ignore_eos": true});
    let (_, a) = post(&simulator, "/v1/completions", &ask(1)).await;
    let (_, b) = post(&simulator, "/v1/completions", &ask(1)).await;
    let (_, c) = post(&simulator, "/v1/completions", &ask(2)).await;
    assert_eq!(a["choices"], b["choices"]);
    assert_ne!(a["choices"], c["choices"]);
}

#[tokio::test]
async fn several_prompts_and_choices_come_back_in_order() {
    let simulator = start(|args| args.mode = Mode::Echo).await;
    let request = json!({"model": "m", "prompt": ["one", "two"], "n": 2, "max_tokens": 5});
    let (_, answer) = post(&simulator, "/v1/completions", &request).await;
    let texts: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| &choice["text"])
        .collect();
    assert_eq!(texts, ["one", "one", "two", "two"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 2);
    let ids = json!({"model": "m", "prompt": [5, 6, 7], "max_tokens": 2, "echo": true});
    let (_, answer) = post(&simulator, "/v1/completions", &ids).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    let request = json!({"model": "m", "prompt": ["one", "two"], "max_tokens": 5, "stream": true});
    let events = events(&simulator, "/v1/completions", &request).await;
    for (index, expected) in ["one", "two"].into_iter().enumerate() {
        let text: String = events
            .iter()
            .filter(|event| event["choices"][0]["index"] == index)
            .filter_map(|event| event["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn a_repeated_prefix_is_counted_as_cached_in_usage_and_metrics() {
    let simulator = start(|_| {}).await;
    let prompt: Vec<u32> = (0..100).collect();
    let request = json!({"model": "m", "prompt": prompt, "max_tokens": 2});
    let (_, cold) = post(&simulator, "/v1/completions", &request).await;
    let (_, warm) = post(&simulator, "/v1/completions", &request).await;
    assert_eq!(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(warm["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
    wait_for_metric(&simulator, "vllm:prefix_cache_hits_total", 96.0).await;
    wait_for_metric(&simulator, "vllm:prefix_cache_queries_total", 200.0).await;
    wait_for_metric(&simulator, "vllm:generation_tokens_total", 4.0).await;
    wait_for_metric(&simulator, "vllm:time_to_first_token_seconds_count", 2.0).await;
    wait_for_metric(&simulator, "vllm:kv_cache_usage_perc", 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_blocks() {
    let simulator = start(|args| args.inter_token_latency = Some(std::time::Duration::from_millis(20))).await;
    let request =
        json!({"model": "m", "prompt": "a b", "max_tokens": 900, "ignore_eos": true, "stream": true});
    let response = send(
        simulator.address(),
        http::Method::POST,
        "/v1/completions",
        &request.to_string(),
    )
    .await
    .unwrap();
    wait_for_metric(&simulator, "vllm:num_requests_running", 1.0).await;
    drop(response);
    wait_for_metric(&simulator, "vllm:num_requests_running", 0.0).await;
    wait_for_metric(&simulator, "vllm:kv_cache_usage_perc", 0.0).await;
    wait_for_metric(
        &simulator,
        "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\"",
        1.0,
    )
    .await;
}

#[tokio::test]
async fn errors_have_the_engine_s_shape() {
    let simulator = start(|_| {}).await;
    let chat = "/v1/chat/completions";
    let completion = "/v1/completions";
    let user = json!([{"role": "user", "content": "x"}]);
    let cases = [
        (completion, json!({"model": "other", "prompt": "a"}), 404, "model"),
        (
            completion,
            json!({"model": "m", "prompt": "a", "max_tokens": 0}),
            400,
            "max_tokens",
        ),
        (
            completion,
            json!({"model": "m", "prompt": "a", "max_tokens": 5000}),
            400,
            "max_tokens",
        ),
        (
            completion,
            json!({"model": "m", "prompt": vec![1; 1000], "max_tokens": 25}),
            400,
            "input_tokens",
        ),
        (
            completion,
            json!({"model": "m", "prompt": vec![1; 1024]}),
            400,
            "input_tokens",
        ),
        (completion, json!({"model": "m", "prompt": ""}), 400, "prompt"),
        (
            completion,
            json!({"model": "m", "prompt": "a", "logprobs": 2}),
            400,
            "logprobs",
        ),
        (
            completion,
            json!({"model": "m", "prompt": "a", "stream_options": {}}),
            400,
            "stream_options",
        ),
        (chat, json!({"model": "m"}), 400, "messages"),
        (chat, json!({"model": "m", "messages": user, "n": 0}), 400, "n"),
        (
            chat,
            json!({"model": "m", "messages": user, "min_tokens": 9, "max_tokens": 3}),
            400,
            "min_tokens",
        ),
        (
            chat,
            json!({"model": "m", "messages": user, "response_format": {"type": "json_object"}}),
            400,
            "response_format",
        ),
        (
            chat,
            json!({"model": "m", "messages": user, "tools": [{"type": "function"}]}),
            400,
            "tool_choice",
        ),
        (
            chat,
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            "messages",
        ),
    ];
    for (path, body, status, param) in cases {
        let (got, answer) = post(&simulator, path, &body).await;
        assert_eq!(
            (got, &answer["error"]["param"]),
            (status, &json!(param)),
            "{body} gave {answer}"
        );
        assert_eq!(answer["error"]["code"], status);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
    let (_, answer) = post(&simulator, completion, &json!({"model": "other", "prompt": "a"})).await;
    assert_eq!(
        answer["error"]["message"],
        "The model `other` does not exist. Valid aliases: m."
    );
    assert_eq!(answer["error"]["type"], "NotFoundError");
    let broken = send(simulator.address(), http::Method::POST, chat, "{\"model\":")
        .await
        .unwrap();
    assert_eq!(broken.status(), 400);
    assert_eq!(
        get(&simulator, "/nothing").await,
        (404, "{\"detail\":\"Not Found\"}".to_owned())
    );
    let wrong = send(simulator.address(), http::Method::GET, chat, "")
        .await
        .unwrap();
    assert_eq!(
        (wrong.status().as_u16(), wrong.headers()["allow"].as_bytes()),
        (405, b"POST".as_slice())
    );
}

#[tokio::test]
async fn models_health_and_headers() {
    let simulator = start(|args| {
        args.served_model_name = vec!["a".into(), "b".into()];
        args.lora_modules = vec!["tuned=/adapters/tuned".parse().unwrap()];
    })
    .await;
    let (_, models) = get(&simulator, "/v1/models").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["a", "b", "tuned"]);
    assert_eq!(models["data"][2]["parent"], "a");
    let response = send(simulator.address(), http::Method::GET, "/health", "")
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-request-id"], "abc");
    assert_eq!(
        response.headers()["x-inference-port"],
        simulator.address().port().to_string().as_str()
    );
    assert_eq!(text(response).await, "");
    let (status, answer) = post(
        &simulator,
        "/v1/completions",
        &json!({"model": "tuned", "prompt": "a", "max_tokens": 1}),
    )
    .await;
    assert_eq!((status, &answer["model"]), (200, &json!("tuned")));
    let (_, page) = get(&simulator, "/metrics").await;
    assert!(page.contains(
        "vllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"}"
    ));
    let (_, tokens) = post(
        &simulator,
        "/tokenize",
        &json!({"model": "a", "prompt": "hello world"}),
    )
    .await;
    assert_eq!(tokens["count"], 2);
}

#[tokio::test]
async fn the_page_has_the_families_of_a_recorded_vllm_page_with_its_types_and_buckets() {
    let simulator = start(|args| args.max_model_len = 4096).await;
    let (_, page) = get(&simulator, "/metrics").await;
    let recorded = include_str!("../trace/vllm-0.32-metrics.txt");
    let types = |page: &str| -> Vec<String> {
        page.lines()
            .filter(|line| line.starts_with("# TYPE vllm:") && !line.contains("_created "))
            .map(str::to_owned)
            .collect()
    };
    let known = types(recorded);
    let ours = types(&page);
    assert!(ours.len() > 25, "{ours:#?}");
    for family in &ours {
        assert!(known.contains(family), "vLLM has no `{family}`");
    }
    let bounds = |page: &str| -> Vec<String> {
        page.lines()
            .filter_map(|line| {
                Some((
                    line.split_once('{')?.0,
                    line.split_once("le=\"")?.1.split_once('"')?.0,
                ))
            })
            .map(|(name, bound)| format!("{name} {}", bound.parse::<f64>().unwrap()))
            .collect()
    };
    let known = bounds(recorded);
    for bound in bounds(&page) {
        assert!(known.contains(&bound), "vLLM has no bucket `{bound}`");
    }
    for family in [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
    ] {
        assert!(
            page.contains(&format!("{family}{{engine=\"0\",model_name=\"m\"}} 0")),
            "{page}"
        );
    }
    assert!(page.contains("block_size=\"16\"") && page.contains("num_gpu_blocks=\"8192\""));
}
