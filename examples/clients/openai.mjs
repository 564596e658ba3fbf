// OpenAI's own library for JavaScript.
// LLAMASUP_URL=http://127.0.0.1:8080 node openai.mjs
// LLAMASUP_KEY is needed only where llamasup has keys.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({
  baseURL: process.env.LLAMASUP_URL + "/v1",
  apiKey: process.env.LLAMASUP_KEY ?? "none",
});
const messages = [{ role: "user", content: "Count!" }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};

const stream = await client.chat.completions.create({
  model: "count",
  messages,
  max_tokens: 5,
  stream: true,
});
let text = "";
for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
console.log("stream:" + text);

const answer = await client.chat.completions.create({ model: "tools", messages, tools: [weather] });
const call = answer.choices[0].message.tool_calls[0];
console.log("tool:", call.function.name, call.function.arguments);

const parsed = await client.chat.completions.parse({
  model: "count",
  messages,
  response_format: zodResponseFormat(z.object({ correct: z.boolean() }), "sum"),
});
console.log("schema:", typeof parsed.choices[0].message.parsed.correct);

const likely = await client.chat.completions.create({
  model: "count",
  messages,
  max_tokens: 2,
  logprobs: true,
});
console.log("logprobs:" + likely.choices[0].logprobs.content.map((token) => token.token).join(""));

const vectors = await client.embeddings.create({ model: "embed", input: ["one", "two"] });
console.log("embeddings:", ...vectors.data.map((vector) => vector.embedding.length));

try {
  await client.chat.completions.create({ model: "none", messages });
} catch (error) {
  console.log("error:", error instanceof OpenAI.NotFoundError, error.code);
}

// Leaving a stream stops the engine: the model is free for the next one at once.
const long = { model: "slow", messages, max_tokens: 2000 };
const short = { model: "slow", messages, max_tokens: 1 };
for await (const chunk of await client.chat.completions.create({ ...long, stream: true })) {
  if (chunk.choices[0]?.delta.content) break;
}
await client.chat.completions.create(short, { timeout: 10_000, maxRetries: 0 });
console.log("left: free again");

try {
  await client.chat.completions.create(long, { timeout: 500, maxRetries: 0 });
} catch (error) {
  console.log("timeout:", error instanceof OpenAI.APIConnectionTimeoutError);
}
await client.chat.completions.create(short, { timeout: 10_000, maxRetries: 0 });
