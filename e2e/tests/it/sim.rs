//! The official OpenAI clients against a simulated engine: everything they parse, they must parse.

use std::time::Duration;

use llmd_sim::{SimArgs, Simulator};

const PYTHON: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
assert [m.id for m in client.models.list()] == ["m"]
messages = [{"role": "user", "content": "Say \"something\" \u00e4."}]
whole = client.chat.completions.create(model="m", messages=messages, max_tokens=9)
text = whole.choices[0].message.content
assert text and whole.choices[0].finish_reason == "length", whole
assert whole.usage.completion_tokens == 9 and whole.usage.prompt_tokens_details.cached_tokens >= 0, whole
stream = list(client.chat.completions.create(model="m", messages=messages, max_completion_tokens=9, stream=True,
    stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == text, stream
assert stream[-1].usage.total_tokens == whole.usage.total_tokens, stream[-1]
several = client.completions.create(model="m", prompt=["a", "b"], n=2, max_tokens=3, extra_body={"ignore_eos": True})
assert [c.index for c in several.choices] == [0, 1, 2, 3] and several.usage.completion_tokens == 12, several
ids = client.completions.create(model="m", prompt=[1, 2, 3], max_tokens=2, stream=True, extra_body={"ignore_eos": True})
assert [c.choices[0].finish_reason for c in ids] == [None, "length"]
try:
    client.chat.completions.create(model="other", messages=messages)
    raise SystemExit("a model that is not served must be an error")
except openai.NotFoundError as error:
    assert error.param == "model" and "does not exist" in error.message, error
try:
    client.completions.create(model="m", prompt="a", max_tokens=10**6)
    raise SystemExit("a cap beyond the context must be an error")
except openai.BadRequestError as error:
    assert error.param == "max_tokens", error
print("ok")
"#;

const NODE: &str = r#"
import OpenAI, { NotFoundError } from "openai";
import assert from "node:assert";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Say \"something\" \u00e4." }];
const whole = await client.chat.completions.create({ model: "m", messages, max_tokens: 9 });
const text = whole.choices[0].message.content;
assert.equal(whole.usage.completion_tokens, 9);
let streamed = "", usage;
for await (const chunk of await client.chat.completions.create({
  model: "m", messages, max_tokens: 9, stream: true, stream_options: { include_usage: true },
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.equal(usage.total_tokens, whole.usage.total_tokens);
const completion = await client.completions.create({ model: "m", prompt: "a", max_tokens: 3 });
assert.equal(completion.choices[0].finish_reason, "length");
await assert.rejects(client.chat.completions.create({ model: "other", messages }), NotFoundError);
assert.deepEqual((await client.models.list()).data.map((model) => model.id), ["m"]);
console.log("ok");
"#;

async fn against_the_simulator(client: fn(&str) -> String) {
    let mut args = SimArgs::for_model("m");
    args.time_to_first_token = Some(Duration::from_millis(1));
    args.inter_token_latency = Some(Duration::from_millis(1));
    let simulator = Simulator::start(args.config().unwrap()).await.unwrap();
    let url = format!("http://{}/v1", simulator.address());
    let output = tokio::task::spawn_blocking(move || client(&url)).await.unwrap();
    assert_eq!(output.trim(), "ok");
}

#[tokio::test]
async fn the_python_client_parses_the_simulator() {
    against_the_simulator(|url| llmd_e2e::tools::python(PYTHON, url)).await;
}

#[tokio::test]
async fn the_node_client_parses_the_simulator() {
    against_the_simulator(|url| llmd_e2e::tools::node(NODE, url)).await;
}
