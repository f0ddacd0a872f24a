"""The official Python client against a real vLLM behind the base URL in argv[1]; prints `fine`."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Say hello"}]


def chat(**more):
    settings = {"model": model, "messages": messages, "temperature": 0, "extra_body": {"ignore_eos": True}}
    return client.chat.completions.create(**{**settings, **more})


whole = chat(max_tokens=8)
assert whole.usage.completion_tokens == 8, whole
chunks = list(chat(max_tokens=8, stream=True, stream_options={"include_usage": True}))
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == whole.choices[0].message.content, (text, whole)
assert chunks[-1].usage.completion_tokens == 8, chunks[-1]

weather = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"], "additionalProperties": False}}}
# The weights are random: whether it calls is chance, that it may is not.
free = chat(tools=[weather], tool_choice="auto", max_tokens=8)
assert free.choices[0].finish_reason in ("length", "tool_calls", "stop"), free
call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"rain":true}'}}
told = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "rain"}]
answer = chat(messages=messages + told, tools=[weather], tool_choice="none", max_tokens=4)
assert answer.usage.completion_tokens == 4, answer

try:
    chat(messages=[{"role": "user", "content": "lorem ipsum " * 90_000}], max_tokens=2)
    raise SystemExit("a prompt of 1 MB was taken by a model of 4,096 tokens")
except openai.BadRequestError as error:
    assert "4096" in str(error), error
try:
    chat(model="no/such-model")
    raise SystemExit("an unknown model was served")
except openai.NotFoundError as error:
    assert "no/such-model" in str(error), error

for _ in range(3):
    with chat(max_tokens=3000, stream=True) as stream:
        next(iter(stream))
print("fine")
