// The official Node client against a real vLLM behind the base URL in argv[2]; prints `fine`.
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'none', maxRetries: 0, timeout: 120000 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: 'user', content: 'Say hello' }];
const chat = (more) => client.chat.completions.create({ model, messages, temperature: 0, ignore_eos: true, ...more });
const check = (what, seen) => { if (!what) throw new Error(JSON.stringify(seen)); };
const status = async (more) => { try { await chat(more); return 200; } catch (error) { return error.status; } };

const whole = await chat({ max_tokens: 8 });
check(whole.usage.completion_tokens === 8, whole);
let text = '', usage;
for await (const chunk of await chat({ max_tokens: 8, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? '';
  usage = chunk.usage ?? usage;
}
check(text === whole.choices[0].message.content && usage.completion_tokens === 8, [text, usage]);
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } }];
check((await chat({ tools, tool_choice: 'none', max_tokens: 4 })).usage.completion_tokens === 4, 'tools');
check((await status({ messages: [{ role: 'user', content: 'lorem ipsum '.repeat(90000) }] })) === 400, 'a long prompt');
check((await status({ model: 'no/such-model' })) === 404, 'an unknown model');
for (let number = 0; number < 3; number++) {
  const stream = await chat({ max_tokens: 3000, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
}
console.log('fine');
