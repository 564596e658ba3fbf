// The Vercel AI SDK, by way of its openai-compatible provider.
// LLAMASUP_URL=http://127.0.0.1:8080 node ai_sdk.mjs

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const server = createOpenAICompatible({
  name: "llamasup",
  baseURL: process.env.LLAMASUP_URL + "/v1",
  supportsStructuredOutputs: true,
});
const prompt = "Count!";

let text = "";
const { textStream } = streamText({ model: server("count"), prompt, maxOutputTokens: 5 });
for await (const part of textStream) text += part;
console.log("stream:" + text);

const weather = tool({
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});
const answer = await generateText({ model: server("tools"), prompt, tools: { weather } });
console.log("tool:", answer.toolResults[0].output);

const { object } = await generateObject({
  model: server("count"),
  prompt,
  schema: z.object({ correct: z.boolean() }),
});
console.log("schema:", typeof object.correct);

const { embeddings } = await embedMany({
  model: server.textEmbeddingModel("embed"),
  values: ["one", "two"],
});
console.log("embeddings:", ...embeddings.map((vector) => vector.length));

try {
  await generateText({ model: server("none"), prompt });
} catch (error) {
  console.log("error:", APICallError.isInstance(error), error.statusCode);
}

// An aborted stream stops the engine: the model is free for the next one at once.
const leaving = new AbortController();
const long = streamText({
  model: server("slow"),
  prompt,
  maxOutputTokens: 2000,
  abortSignal: leaving.signal,
});
for await (const part of long.textStream) {
  if (part) leaving.abort();
}
await generateText({
  model: server("slow"),
  prompt,
  maxOutputTokens: 1,
  maxRetries: 0,
  abortSignal: AbortSignal.timeout(10_000),
});
console.log("left: free again");
