// Ollama's own library for JavaScript.
// LLAMASUP_URL=http://127.0.0.1:8080 node ollama.mjs

import { Ollama } from "ollama";

const client = new Ollama({ host: process.env.LLAMASUP_URL });
const messages = [{ role: "user", content: "Count!" }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "Tell the weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};

let text = "";
const options = { num_predict: 5 };
for await (const part of await client.chat({ model: "count", messages, options, stream: true })) {
  text += part.message.content;
}
console.log("stream:" + text);

const answer = await client.chat({ model: "tools", messages, tools: [weather] });
const call = answer.message.tool_calls[0].function;
console.log("tool:", call.name, JSON.stringify(call.arguments));

const { embeddings } = await client.embed({ model: "embed", input: ["one", "two"] });
console.log("embeddings:", ...embeddings.map((vector) => vector.length));

try {
  await client.chat({ model: "none", messages });
} catch (error) {
  console.log("error:", error.status_code);
}

const long = await client.chat({
  model: "slow",
  messages,
  options: { num_predict: 2000 },
  stream: true,
});
try {
  for await (const part of long) {
    if (part.message.content) long.abort();
  }
} catch (error) {
  console.log("aborted:", error.name);
}
await client.chat({ model: "slow", messages, options: { num_predict: 1 } });
console.log("left: free again");
