//! The official clients, and where requests go.

use std::collections::BTreeSet;

use llmd_e2e::tools;

use super::support::{Up, chat, deployment, engine};

const PYTHON: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Say hello"}]
whole = client.chat.completions.create(model=model, messages=messages, max_tokens=8)
assert whole.choices[0].message.content and whole.usage.completion_tokens == 8, whole
stream = client.chat.completions.create(model=model, messages=messages, max_tokens=8, stream=True,
                                        stream_options={"include_usage": True})
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert chunks[-1].usage.completion_tokens == 8, chunks[-1]
completion = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4)
assert completion.choices[0].text, completion
try:
    client.chat.completions.create(model="no/such-model", messages=messages)
    raise SystemExit("an unknown model was served")
except openai.NotFoundError as error:
    assert "no/such-model" in str(error), error
print(model)
"#;

const NODE: &str = r"
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'none', maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: 'user', content: 'Say hello' }];
const whole = await client.chat.completions.create({ model, messages, max_tokens: 8 });
let text = '';
for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 8, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? '';
}
if (!text || text !== whole.choices[0].message.content) throw new Error(`${text} != ${JSON.stringify(whole)}`);
try {
  await client.chat.completions.create({ model: 'no/such-model', messages });
  throw new Error('an unknown model was served');
} catch (error) {
  if (error.status !== 404) throw error;
}
console.log(model);
";

#[test]
fn the_python_client_talks_to_it_streaming_and_not() {
    let up = Up::file(&deployment(2, &[]));
    assert_eq!(tools::python(PYTHON, &up.url).trim(), "test/model");
}

#[test]
fn the_node_client_talks_to_it_streaming_and_not() {
    let up = Up::file(&deployment(2, &[]));
    assert_eq!(tools::node(NODE, &up.url).trim(), "test/model");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_common_prefix_sticks_and_different_prompts_spread() {
    let up = Up::file(&deployment(2, &[]));
    up.wait_for_engines(&["test-decode-0", "test-decode-1"]);
    let prefix = "You are a patient assistant who answers in full sentences. ".repeat(40);
    let first = engine(&up.chat(&format!("{prefix} What is one?"), 4).await);
    for question in ["What is two?", "What is three?", "What is four?"] {
        assert_eq!(engine(&up.chat(&format!("{prefix} {question}"), 4).await), first);
    }
    let different = (0..16).map(|number| {
        let prompt = format!("{number} ").repeat(400);
        async move { chat(up.address, "test/model", &prompt, 16).await.unwrap() }
    });
    let answers = futures_util::future::join_all(different).await;
    let engines: BTreeSet<String> = answers.iter().map(engine).collect();
    assert_eq!(engines.len(), 2, "{engines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_two_simulated_engines_answer() {
    let up = Up::with(&[]);
    let models = llmd_e2e::http::get(up.address, "/v1/models")
        .await
        .unwrap()
        .json();
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    let answer = chat(up.address, &model, "hello", 4).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(up.rows().values().filter(|row| row["router"] == false).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_when_one_is_given() {
    let up = Up::file_with(&deployment(1, &[]), &["--bind", "0.0.0.0", "--api-key", "s3cret"]);
    assert_eq!(up.chat("hello", 2).await.status, 401);
    let body = super::support::body("test/model", "hello", 2, false);
    let headers = [("authorization", "Bearer s3cret")];
    let answer = llmd_e2e::http::post(up.address, "/v1/chat/completions", body, &headers)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        !up.process.log().iter().any(|line| line.contains("s3cret")),
        "the key is in no log"
    );
}
