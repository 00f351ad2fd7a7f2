// The programs of programs.py, in TypeScript: `node programs.mjs FOLDER ADDRESS...`. FOLDER has the SDK.

import { CHAT, EMBEDDING, PIXEL, requireOfSdk, sdk } from "../typescript_sdk.mjs";

const addresses = process.argv.slice(3);
const { Chat, LMStudioClient, rawFunctionTool } = sdk;
const { z } = requireOfSdk("zod");

const chatModel = (client) => client.llm.model(CHAT, { verbose: false });
const embeddingModel = (client) => client.embedding.model(EMBEDDING, { verbose: false });

const PROGRAMS = {
  async stream(client) {
    const fragments = [];
    for await (const { content } of (await chatModel(client)).respond("Tell a story")) fragments.push(content);
    return fragments;
  },
  async chat(client) {
    const model = await chatModel(client);
    const history = Chat.from([{ role: "system", content: "You are a parrot." }]);
    const responses = [];
    for (const text of ["Hello", "What did I say?", "And now?"]) {
      history.append("user", text);
      responses.push((await model.respond(history)).content);
      history.append("assistant", responses.at(-1));
    }
    return responses;
  },
  async complete(client) {
    const config = { temperature: 0, maxTokens: 5, topKSampling: 20, topPSampling: 0.9, stopStrings: ["never"] };
    const { content, stats } = await (await chatModel(client)).complete("Once upon a time", config);
    return [content, stats.stopReason];
  },
  async typed(client) {
    const structured = z.object({ title: z.string(), tags: z.array(z.string()) }).describe("A book.");
    return (await (await chatModel(client)).respond("Name another book", { structured })).parsed;
  },
  async reasoning(client) {
    let text = "";
    for await (const { content, reasoningType } of (await chatModel(client)).respond("Think about it")) {
      if (reasoningType === "reasoning") text += content;
    }
    return text;
  },
  async act(client) {
    const tool = rawFunctionTool({
      name: "add",
      description: "Add two numbers",
      parametersJsonSchema: {
        type: "object",
        properties: { a: { type: "integer" }, b: { type: "integer" } },
        required: ["a", "b"],
      },
      implementation: ({ a, b }) => a + b,
    });
    const texts = [];
    const onMessage = (message) => texts.push(message.getText());
    const { rounds } = await (await chatModel(client)).act("What is 2 + 3?", [tool], { onMessage });
    return [rounds, texts.at(-1)];
  },
  async cancel(client) {
    const prediction = (await chatModel(client)).respond("Wait");
    for await (const _ of prediction) await prediction.cancel();
    const { content, stats } = await prediction.result();
    return [content, stats.stopReason];
  },
  async image(client) {
    const image = await client.files.prepareImageBase64("pixel.png", PIXEL);
    const history = [{ role: "user", content: "What is this?", images: [image] }];
    return (await (await chatModel(client)).respond(history)).content;
  },
  async load(client) {
    const config = { contextLength: 1000, gpu: { ratio: 0.5 }, evalBatchSize: 128 };
    const model = await client.llm.load(CHAT, { identifier: "mine", config, ttl: 60, verbose: false });
    const found = [(await model.respond("Here I am")).content, await model.getContextLength()];
    await model.unload();
    return found;
  },
  async tokens(client) {
    const model = await chatModel(client);
    const history = Chat.from([
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hello there" },
    ]);
    return [
      await model.tokenize("Hello there"),
      await model.countTokens("Hello, world"),
      await model.applyPromptTemplate(history),
      await model.getContextLength(),
    ];
  },
  async embed_several(client) {
    const vectors = await (await embeddingModel(client)).embed(["one", "two", "three"]);
    return vectors.map(({ embedding }) => embedding);
  },
};

for (const address of addresses) {
  const client = new LMStudioClient({ baseUrl: `ws://${address}` });
  const found = {};
  for (const [name, program] of Object.entries(PROGRAMS)) found[name] = await program(client);
  console.log(JSON.stringify(found));
  await client[Symbol.asyncDispose]();
}
