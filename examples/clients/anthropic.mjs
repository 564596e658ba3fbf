// Anthropic's own library for JavaScript.
// LLAMASUP_URL=http://127.0.0.1:8080 node anthropic.mjs
// LLAMASUP_KEY is needed only where llamasup has keys.

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.LLAMASUP_URL,
  apiKey: process.env.LLAMASUP_KEY ?? "none",
});
const messages = [{ role: "user", content: "Count!" }];
const weather = {
  name: "weather",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
};

let text = "";
const stream = client.messages.stream({ model: "count", messages, max_tokens: 5 });
stream.on("text", (part) => (text += part));
const last = await stream.finalMessage();
console.log("stream:" + text);
console.log("usage:", last.usage.output_tokens);

const answer = await client.messages.create({
  model: "tools",
  messages,
  max_tokens: 100,
  tools: [weather],
});
const call = answer.content.find((block) => block.type === "tool_use");
console.log("tool:", call.name, JSON.stringify(call.input));

try {
  await client.messages.create({ model: "none", messages, max_tokens: 5 });
} catch (error) {
  console.log("error:", error instanceof Anthropic.NotFoundError);
}

const long = { model: "slow", messages, max_tokens: 2000 };
const short = { model: "slow", messages, max_tokens: 1 };
for await (const event of await client.messages.create({ ...long, stream: true })) {
  if (event.type === "content_block_delta") break;
}
await client.messages.create(short, { timeout: 10_000, maxRetries: 0 });
console.log("left: free again");

try {
  await client.messages.create(long, { timeout: 500, maxRetries: 0 });
} catch (error) {
  console.log("timeout:", error instanceof Anthropic.APIConnectionTimeoutError);
}
