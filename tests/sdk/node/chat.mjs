// OpenAI's Node SDK, unmodified: each scenario prints one JSON line. Usage: node chat.mjs BASE_URL KEY MODEL
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Say something." }];
const tools = [
  { type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } },
];
const say = (name, value) => console.log(JSON.stringify({ name, value }));

const whole = await client.chat.completions.create({ model, messages, temperature: 0.5 });
say("whole", { content: whole.choices[0].message.content, model: whole.model, usage: whole.usage });

const stream = await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
});
let text = "";
let last;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  last = chunk;
}
say("stream", { content: text, usage: last.usage });

const called = await client.chat.completions.create({ model, messages, tools });
say("tools", called.choices[0].message.tool_calls[0].function);

const runner = client.chat.completions.stream({ model, messages, tools });
const final = await runner.finalChatCompletion();
say("streamed tools", final.choices[0].message.tool_calls[0].function);

const City = z.object({ name: z.string(), inhabitants: z.number() });
const parsed = await client.chat.completions.parse({ model, messages, response_format: zodResponseFormat(City, "city") });
say("parsed", parsed.choices[0].message.parsed);

try {
  await client.chat.completions.create({ model: "no/such-model", messages });
} catch (error) {
  say("error", { kind: error.constructor.name, code: error.code, status: error.status, id: error.requestID ?? error.request_id });
}
