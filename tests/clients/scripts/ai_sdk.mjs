// Vercel's AI SDK: text, stream, tools in several steps, objects, errors.
import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "ours",
  baseURL: process.env.BASE_URL,
  apiKey: "sesame",
  supportsStructuredOutputs: true,
});
const model = provider("m");
const weather = tool({
  description: "Says the weather.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => "sunny",
});
const asked = { model, prompt: "Where?", maxRetries: 0 };
assert.equal((await generateText(asked)).text, "The capital of France is Paris.");
let text = "";
for await (const part of streamText(asked).textStream) text += part;
assert.equal(text, "The capital of France is Paris.");

const steps = { ...asked, tools: { weather }, stopWhen: stepCountIs(3) };
assert.equal((await generateText(steps)).text, "It is sunny.");
text = "";
for await (const part of streamText(steps).textStream) text += part;
assert.equal(text, "It is sunny.");
const forced = await generateText({ ...asked, tools: { weather }, toolChoice: "required", stopWhen: stepCountIs(1) });
assert.deepEqual(forced.toolCalls[0].input, { city: "Paris" });
const schema = z.object({ name: z.string(), capital: z.boolean() });
assert.deepEqual((await generateObject({ ...asked, schema })).object, { name: "Paris", capital: true });
await assert.rejects(generateText({ ...asked, model: provider("nope") }), /nope/);
