//! What users do with the official clients, against any base URL that serves one model.

/// Python; prints the model's name. `SIZE` is the length of the longest prompt, in bytes.
const PYTHON: &str = r#"
import sys, threading, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Say hello"}]
chat = client.chat.completions.create

whole = chat(model=model, messages=messages, max_tokens=8)
assert whole.model == model and whole.choices[0].message.content and whole.usage.completion_tokens == 8, whole
chunks = list(chat(model=model, messages=messages, max_tokens=8, stream=True, stream_options={"include_usage": True}))
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert chunks[-1].usage.completion_tokens == 8 and chunks[-1].usage.prompt_tokens > 0, chunks[-1]
completion = client.completions.create(model=model, prompt="Once upon a time", max_tokens=4)
assert completion.choices[0].text and completion.usage.completion_tokens == 4, completion

weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
called = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}]}
told = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
answer = chat(model=model, messages=messages + [called, told], tools=[weather], tool_choice="none", max_tokens=4)
assert answer.choices[0].message.content and answer.usage.prompt_tokens > whole.usage.prompt_tokens, answer

long = chat(model=model, messages=[{"role": "user", "content": "lorem ipsum " * (SIZE // 12)}], max_tokens=2)
assert long.usage.completion_tokens == 2 and long.usage.prompt_tokens > SIZE // 20, long.usage

try:
    chat(model="no/such-model", messages=messages)
    raise SystemExit("an unknown model was served")
except openai.NotFoundError as error:
    assert "no/such-model" in str(error), error
try:
    chat(model="", messages=messages)
    raise SystemExit("an empty model was accepted")
except openai.BadRequestError:
    pass
try:
    chat(model=model, messages=messages, max_tokens=-1)
    raise SystemExit("a negative number of tokens was accepted")
except openai.BadRequestError as error:
    assert "max_tokens" in str(error), error

# Clients that leave in the middle of a stream.
for _ in range(3):
    with chat(model=model, messages=messages, max_tokens=5000, stream=True) as stream:
        next(iter(stream))

counts, lock = [], threading.Lock()
def read(number):
    stream = chat(model=model, messages=[{"role": "user", "content": f"Story {number}"}], max_tokens=20, stream=True)
    parts = sum(1 for c in stream if c.choices and c.choices[0].delta.content)
    with lock:
        counts.append(parts)
threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(counts) == 20 and min(counts) > 0, counts
print(model)
"#;

/// Node; prints the model's name.
const NODE: &str = r"
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'none', maxRetries: 0, timeout: 60000 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: 'user', content: 'Say hello' }];
const chat = (more) => client.chat.completions.create({ model, messages, ...more });
const check = (what, seen) => { if (!what) throw new Error(JSON.stringify(seen)); };

const whole = await chat({ max_tokens: 8 });
check(whole.usage.completion_tokens === 8, whole);
let text = '', usage;
for await (const chunk of await chat({ max_tokens: 8, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
check(text && text === whole.choices[0].message.content, [text, whole]);
check(usage.completion_tokens === 8 && usage.prompt_tokens > 0, usage);

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } }];
const tooled = await chat({ tools, tool_choice: 'none', max_tokens: 4 });
check(tooled.choices[0].message.content, tooled);

const long = await chat({ messages: [{ role: 'user', content: 'lorem ipsum '.repeat(SIZE / 12) }], max_tokens: 2 });
check(long.usage.completion_tokens === 2 && long.usage.prompt_tokens > SIZE / 20, long.usage);

const status = async (more) => { try { await chat(more); return 200; } catch (error) { return error.status; } };
check((await status({ model: 'no/such-model' })) === 404, 'an unknown model');
check((await status({ max_tokens: -1 })) === 400, 'a negative number of tokens');

for (let number = 0; number < 3; number++) {
  const stream = await chat({ max_tokens: 5000, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
}
const read = async (number) => {
  let parts = 0;
  const content = `Story ${number}`;
  for await (const chunk of await chat({ messages: [{ role: 'user', content }], max_tokens: 20, stream: true })) {
    if (chunk.choices[0]?.delta?.content) parts++;
  }
  return parts;
};
const counts = await Promise.all([...Array(20).keys()].map(read));
check(Math.min(...counts) > 0, counts);
console.log(model);
";

/// The journey in Python with a longest prompt of `bytes`.
pub(crate) fn python(bytes: usize) -> String {
    PYTHON.replace("SIZE", &bytes.to_string())
}

/// The journey in Node with a longest prompt of `bytes`.
pub(crate) fn node(bytes: usize) -> String {
    NODE.replace("SIZE", &bytes.to_string())
}
