//! The official clients, through Envoy and the picker, to simulated engines.

use llmd_e2e::envoy::{self, Envoy};
use llmd_e2e::epp::{self, Epp};
use llmd_e2e::tools;

use super::engine;

const PYTHON: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=30)
assert "tiny" in [model.id for model in client.models.list()]
messages = [{"role": "user", "content": "Say something."}]
whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
assert whole.model == "tiny" and whole.usage.completion_tokens == 8, whole
stream = client.chat.completions.create(
    model="tiny", messages=messages, max_tokens=8, stream=True, stream_options={"include_usage": True})
chunks = list(stream)
assert chunks[-1].usage.completion_tokens == 8, chunks[-1]
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
text = client.completions.create(model="tiny", prompt="Once", max_tokens=4)
assert text.usage.completion_tokens == 4, text
try:
    client.chat.completions.create(model="", messages=messages)
    raise SystemExit("an empty model was accepted")
except openai.BadRequestError as error:
    assert "model not found in request body" in error.response.text, error.response.text
print("fine")
"#;

const NODE: &str = r"
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'none', maxRetries: 0, timeout: 30000 });
const messages = [{ role: 'user', content: 'Say something.' }];
const whole = await client.chat.completions.create({ model: 'tiny', messages, max_tokens: 8 });
if (whole.usage.completion_tokens !== 8) throw new Error(JSON.stringify(whole));
const stream = await client.chat.completions.create({ model: 'tiny', messages, max_tokens: 8, stream: true });
let text = '';
for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
if (!text) throw new Error('no text');
console.log('fine');
";

async fn through_envoy(client: fn(&str) -> String) {
    let (one, other) = (engine().await, engine().await);
    let epp = Epp::start(&[one.1, other.1], &epp::Options::default()).await;
    let envoy = Envoy::start(epp.ext_proc, &envoy::Options::default()).await;
    let url = format!("http://{}/v1", envoy.address);
    for _ in 0..2 {
        let url = url.clone();
        let said = tokio::task::spawn_blocking(move || client(&url)).await.unwrap();
        assert_eq!(said.trim(), "fine");
    }
    epp.wait_for_in_flight(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_through_envoy() {
    through_envoy(|url| tools::python(PYTHON, url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_client_works_through_envoy() {
    through_envoy(|url| tools::node(NODE, url)).await;
}
