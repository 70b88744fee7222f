// OpenAI's client for Node: chat, stream, tools, responses, errors.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Where?" }];
const tools = [{
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
}];
const answer = await client.chat.completions.create({ model: "m", messages });
assert.equal(answer.choices[0].message.content, "The capital of France is Paris.");
let text = "";
for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(text, "The capital of France is Paris.");

const runner = client.chat.completions.runTools({
  model: "m",
  messages,
  stream: true,
  tools: [{ ...tools[0], function: { ...tools[0].function, parse: JSON.parse, function: async () => "sunny" } }],
});
assert.equal(await runner.finalContent(), "It is sunny.");
const response = await client.responses.create({ model: "m", input: "Where?" });
assert.equal(response.output_text, "The capital of France is Paris.");
await assert.rejects(client.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
await assert.rejects(new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
