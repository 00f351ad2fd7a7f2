// What a program in TypeScript does with the SDK, one step per run: `node steps.mjs FOLDER URL STEP [TOKEN]`.
//
// A step prints its findings as one line of JSON. Node must then end by itself: a channel that the server left open
// would keep it alive.

import { CHAT, EMBEDDING, PIXEL, SCHEMA, sdk } from "../typescript_sdk.mjs";

const [url, step, token] = process.argv.slice(3);
const { Chat, LMStudioClient, rawFunctionTool, tool } = sdk;

// Each sets what others exclude, or shows how the SDK writes a value. `false` is off.
const LOAD_CONFIGS = [
  {},
  { autoFit: true },
  { autoFit: false },
  { autoFit: true, gpu: { disabledGpus: [1] } },
  { autoFit: false, contextLength: 2048 },
  { autoFit: true, contextLength: 2048 },
  { autoFit: true, gpu: { ratio: 0.5 } },
  { autoFit: true, gpu: { numCpuExpertLayersRatio: "off" } },
  { autoFit: true, gpu: { mainGpu: 0 } },
  { autoFit: true, gpu: { splitStrategy: "evenly" } },
  { autoFit: true, gpuStrictVramCap: false },
  { contextLength: 2048 },
  { gpu: {} },
  { gpu: { ratio: "max" } },
  { gpu: { numCpuExpertLayersRatio: 0.25 } },
  { gpu: { mainGpu: 1 } },
  { gpu: { mainGpu: 1, splitStrategy: "favorMainGpu", disabledGpus: [0] } },
  { gpu: { disabledGpus: [0, 2] } },
  { gpuStrictVramCap: true },
  { seed: 7, ropeFrequencyBase: 10000, ropeFrequencyScale: 0.5 },
  { seed: false, ropeFrequencyBase: false, ropeFrequencyScale: false },
  { seed: -1 },
  { seed: -2 },
  { ropeFrequencyBase: -1 },
  { numExperts: 2, maxParallelPredictions: 8, useUnifiedKvCache: false, offloadKVCacheToGpu: false },
  { numExperts: -1 },
  { maxParallelPredictions: 0 },
  { maxParallelPredictions: 1024 },
  { evalBatchSize: 512, physicalBatchSize: 256, flashAttention: true, contextCheckpoints: 0 },
  { evalBatchSize: 0 },
  { contextCheckpoints: -1 },
  { reasoningBudgetMessage: "enough", keepModelInMemory: false, useFp16ForKVCache: false },
  { tryMmap: false, tryDirectIO: true, promptTemplate: { type: "jinja", jinjaPromptTemplate: { template: "t" } } },
  { llamaKCacheQuantizationType: "q8_0", llamaVCacheQuantizationType: false },
  { llamaKCacheQuantizationType: "q9_0" },
  {
    llamaCppArgumentsOverride: {
      enabled: true,
      disabledParameters: ["--mlock"],
      overrideParameters: [{ key: "--threads", value: "4" }],
      excludeAllConfig: false,
    },
  },
  { mlxDiskCache: false, mlxKvCacheQuantization: { enabled: true, bits: 4, groupSize: 32, quantizedStart: 0 } },
  { mlxKvCacheQuantization: false },
  { speculativeDraftMtp: true },
  { speculativeDraftMtp: false, speculativeDraftMaxTokens: 4, speculativeDraftMinTokens: 0 },
  { speculativeDraftSimple: true, speculativeDraftModel: "small", speculativeDraftMinContinueProbability: 0.5 },
  { speculativeDraftSimple: true },
  { speculativeDraftModel: "small" },
  { speculativeDraftMtp: true, speculativeDraftSimple: true, speculativeDraftModel: "small" },
  { speculativeDraftMaxTokens: 1, speculativeDraftMinTokens: 2 },
];
const EMBEDDING_LOAD_CONFIGS = [
  { contextLength: 1024, keepModelInMemory: false, tryMmap: false },
  { ropeFrequencyBase: 10000, ropeFrequencyScale: false },
  { gpu: { mainGpu: 1, splitStrategy: "favorMainGpu" } },
  { contextLength: 0 },
];
const PREDICTION_CONFIGS = [
  { temperature: 0.5, maxTokens: 5, topKSampling: 20, cpuThreads: 2 },
  { maxTokens: false, repeatPenalty: false, presencePenalty: false, minPSampling: false, topPSampling: false },
  { repeatPenalty: 1.2, presencePenalty: 0.5, minPSampling: 0.1, topPSampling: 0.9 },
  { logProbs: 3, reasoningBudget: 10, userMaxImageDimensionPixels: 512, enableThinking: false },
  { logProbs: false, reasoningBudget: false, userMaxImageDimensionPixels: false },
  { stopStrings: ["a"], toolCallStopStrings: ["b"], contextOverflowPolicy: "stopAtLimit", toolNaming: "snakeCase" },
  { toolChoice: { type: "generic", mode: "none" }, structured: { type: "json", jsonSchema: SCHEMA } },
  { reasoningParsing: { enabled: false, startString: "<a>", endString: "</a>" } },
  {
    draftModel: "blind-model",
    speculativeDecodingNumDraftTokensExact: 2,
    speculativeDecodingMinDraftLengthToConsider: 0,
    speculativeDecodingMinContinueDraftingProbability: 0.5,
    ignoreModelPreferredMaxImageDimension: true,
  },
  { maxTokens: 0 },
  { temperature: -1 },
  { topKSampling: 501 },
  { topPSampling: 1.5 },
  { logProbs: 101 },
  { repeatPenalty: -1.5 },
  { cpuThreads: 0 },
  { reasoningBudget: -1 },
  { userMaxImageDimensionPixels: 0 },
  { speculativeDecodingNumDraftTokensExact: 0 },
  { speculativeDecodingMinDraftLengthToConsider: -1 },
  { speculativeDecodingMinContinueDraftingProbability: 1.5 },
];

const failure = async (work) => {
  try {
    await work();
  } catch (error) {
    return String(error.message);
  }
  return "no error";
};

// A call of a tool of a plugin, as the SDK's `act` makes it.
const toolCall = (tool, parameters) => {
  const abort = new AbortController();
  const reports = [];
  const waiting = [];
  const report = (kind) => (text) => {
    reports.push([kind, text]);
    waiting.splice(0).forEach((check) => check());
  };
  const until = async (text) => {
    while (!reports.some(([, reported]) => reported === text)) await new Promise((done) => waiting.push(done));
  };
  const context = { signal: abort.signal, callId: 0, status: report("status"), warn: report("warning") };
  const result = tool.implementation(parameters, context);
  result.catch(() => {}); // it may fail before somebody waits for it
  return { result, reports, abort, until };
};

const adder = () =>
  (rawFunctionTool ?? tool)({
    name: "add",
    description: "Add two numbers",
    parametersJsonSchema: {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      required: ["a", "b"],
    },
    implementation: ({ a, b }) => a + b,
  });

const STEPS = {
  async load(client) {
    const progress = [];
    const model = await client.llm.model(CHAT, { ttl: 60, verbose: false, onProgress: (value) => progress.push(value) });
    const again = await client.llm.model(CHAT, { verbose: false });
    return { identifiers: [model.identifier, again.identifier], progress };
  },
  async respond(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const prompt = [];
    const result = await model.respond("Hello there", {
      temperature: 0,
      maxTokens: 100,
      onPromptProcessingProgress: (progress) => prompt.push(progress),
    });
    const { content, stats, modelInfo } = result;
    return { content, stats, modelKey: modelInfo.modelKey, prompt };
  },
  async stream(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const prediction = model.respond([{ role: "user", content: "Hello" }]);
    const fragments = [];
    for await (const { content } of prediction) fragments.push(content);
    return { fragments, content: (await prediction.result()).content };
  },
  async complete(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const { stats } = await model.complete("Once upon a time", { maxTokens: 3 });
    return stats;
  },
  async cancel(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const prediction = model.respond("Count to two thousand");
    for await (const _ of prediction) await prediction.cancel();
    return (await prediction.result()).stats;
  },
  async embed(client) {
    const model = await client.embedding.model(EMBEDDING, { verbose: false });
    const vectors = await model.embed(["one text", "another"]);
    return { lengths: vectors.map(({ embedding }) => embedding.length), context: await model.getContextLength() };
  },
  async structured(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const { content } = await model.respond("Name a book", { structured: { type: "json", jsonSchema: SCHEMA } });
    return JSON.parse(content);
  },
  async listAndUnload(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const loaded = (await client.llm.listLoaded()).map(({ identifier }) => identifier);
    const downloaded = (await client.system.listDownloadedModels()).map(({ modelKey }) => modelKey);
    await model.unload();
    return { loaded, downloaded, after: (await client.llm.listLoaded()).length };
  },
  async first(client) {
    const downloaded = await client.system.listDownloadedModels();
    for (const { type, modelKey } of downloaded) await client[type].model(modelKey, { verbose: false });
    const { content } = await (await client.llm.model()).respond("Hello");
    return { downloaded: downloaded.map(({ modelKey }) => modelKey), content };
  },
  async act(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const messages = [];
    const { rounds } = await model.act("What is 2 + 3?", [adder()], {
      onMessage: (message) => messages.push([message.getRole(), message.getText()]),
    });
    return { rounds, messages };
  },
  async instances(client) {
    const first = await client.llm.load(CHAT, { verbose: false });
    const second = await client.llm.load(CHAT, { identifier: "mine", verbose: false, config: { contextLength: 512 } });
    const third = await client.llm.load(CHAT, { verbose: false });
    const info = await second.getModelInfo();
    return {
      identifiers: [first.identifier, second.identifier, third.identifier],
      context: await second.getContextLength(),
      info,
      duplicate: await failure(() => client.llm.load(CHAT, { identifier: "mine", verbose: false })),
    };
  },
  async configs(client) {
    const tried = async (configs, use) => {
      const found = [];
      for (const config of configs) found.push({ config, error: await failure(() => use(config)) });
      return found;
    };
    const load = (namespace, key) => async (config) =>
      (await namespace.load(key, { config, verbose: false })).unload();
    const llm = await tried(LOAD_CONFIGS, load(client.llm, CHAT));
    const embedding = await tried(EMBEDDING_LOAD_CONFIGS, load(client.embedding, EMBEDDING));
    const model = await client.llm.load(CHAT, { verbose: false });
    const prediction = await tried(PREDICTION_CONFIGS, (config) => model.respond("Hello", config).result());
    return { llm, embedding, prediction };
  },
  async anyModel(client) {
    const none = await failure(() => client.llm.model());
    const loaded = await client.llm.load(CHAT, { verbose: false });
    const any = await client.llm.model();
    const handle = client.llm.createDynamicHandle({ identifier: "no such model" });
    return {
      none,
      same: any.identifier === loaded.identifier,
      missing: (await handle.getModelInfo()) === undefined,
      state: await any.getInstanceProcessingState(),
    };
  },
  async staleReference(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    await client.llm.unload(model.identifier);
    return failure(() => model.tokenize("x"));
  },
  async makeWay(client) {
    await client.embedding.model(EMBEDDING, { verbose: false });
    const model = await client.llm.model(CHAT, { verbose: false });
    return { ttlMs: (await model.getModelInfo()).ttlMs, embeddings: (await client.embedding.listLoaded()).length };
  },
  async abortLoad(client) {
    const abort = new AbortController();
    const message = await failure(() =>
      client.llm.model("slow-model", { verbose: false, signal: abort.signal, onProgress: () => abort.abort() }),
    );
    return { message, loaded: (await client.llm.listLoaded()).length };
  },
  async tokens(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const chat = Chat.from([{ role: "system", content: "Be brief." }, { role: "user", content: "Hello there" }]);
    return {
      tokens: (await model.tokenize("Hello there, world")).length,
      count: await model.countTokens("Hello there, world"),
      template: await model.applyPromptTemplate(chat),
      base: await model.getBasePredictionConfig(),
    };
  },
  async images(client) {
    const image = await client.files.prepareImageBase64("pixel.png", PIXEL);
    const model = await client.llm.model(CHAT, { verbose: false });
    const { content } = await model.respond([{ role: "user", content: "What is this?", images: [image] }]);
    const blind = await client.llm.model("blind-model", { verbose: false });
    const error = await failure(() => blind.respond([{ role: "user", content: "And this?", images: [image] }]).result());
    return { content, error };
  },
  async reasoning(client) {
    const model = await client.llm.model(CHAT, { verbose: false });
    const { reasoningContent, nonReasoningContent } = await model.respond("Think about it");
    return { reasoningContent, nonReasoningContent };
  },
  async errors(client) {
    const unknown = await failure(() => client.llm.model("no-such-model", { verbose: false }));
    const kind = await failure(() => client.llm.model(EMBEDDING, { verbose: false }));
    const model = await client.llm.model(CHAT, { verbose: false });
    const preset = await failure(() => model.respond("Hello", { preset: "unheard-of" }).result());
    const rule = await failure(() => model.respond("Fail").result());
    const unload = await failure(() => client.llm.unload("no-such-model"));
    const draft = await failure(() => model.complete("Hello", { draftModel: "no-such-model" }).result());
    return { unknown, kind, preset, rule, unload, draft };
  },
  async documents(client) {
    const text = "The sky is blue today.\n\nGrass is green in spring.\n\nSnow is white in winter.";
    const file = await client.files.prepareFileBase64("facts.md", Buffer.from(text).toString("base64"));
    const parsed = await client.files.parseDocument(file);
    const embeddingModel = await client.embedding.model(EMBEDDING, { verbose: false });
    const { entries } = await client.files.retrieve("What colour is green grass?", [file], {
      embeddingModel,
      verbose: false,
      chunkingMethod: { type: "recursive-v1", chunkSize: 30, chunkOverlap: 0 },
      limit: 1,
    });
    const odd = await client.files.prepareFileBase64("odd.bin", "AAEC");
    return {
      parsed: parsed.content,
      found: entries.map(({ content }) => content),
      error: await failure(() => client.files.parseDocument(odd)),
    };
  },
  async download(client) {
    const [found] = await client.repository.searchModels({ searchTerm: "not-yet-here" });
    const [option] = await found.getDownloadOptions();
    const updates = [];
    const key = await option.download({ onProgress: ({ totalBytes }) => updates.push(totalBytes) });
    const model = await client.llm.model(key, { verbose: false });
    return { key, updates, identifier: model.identifier };
  },
  async planDownload(client) {
    const planned = async (name, use = () => {}) => {
      const planner = client.repository.createArtifactDownloadPlanner({ owner: "scripted", name });
      try {
        await planner.untilReady();
        await use(planner);
        const { downloadSizeBytes, nodes } = planner.getPlan();
        return [downloadSizeBytes, ...nodes.map(({ state }) => state)];
      } finally {
        planner[Symbol.dispose]();
      }
    };
    const events = [];
    const first = await planned("not-yet-here", (planner) =>
      planner.download({
        onProgress: ({ totalBytes }) => events.push(totalBytes),
        onStartFinalizing: () => events.push("finalizing"),
      }),
    );
    const second = await planned("not-yet-here");
    const unknown = await failure(() => planned("never-heard-of"));
    const model = await client.llm.model("not-yet-here", { verbose: false });
    return { plans: [first, second], events, unknown, identifier: model.identifier };
  },
  async chooseDownload(client) {
    const [pick] = await client.repository.unstable.fuzzyFindStaffPicks({ searchTerm: "not-yet-here" });
    const catalog = await client.repository.unstable.getModelCatalog();
    const planner = client.repository.createArtifactDownloadPlanner({ ...pick, compatibilityTypes: ["gguf"] });
    await planner.untilReady();
    await planner.selectModelDownloadOption({ nodeIndex: 1, downloadOptionIndex: 0 });
    await planner.download({});
    planner[Symbol.dispose]();
    const source = { type: "huggingface", user: "scripted", repo: "blind-model" };
    const owned = client.repository.createModelDownloadPlanner({ source });
    await owned.untilReady();
    await owned.selectModelDownloadOption({ nodeIndex: 0, downloadOptionIndex: 0 });
    const again = owned.getPlan().downloadAction;
    await owned.selectAlreadyOwnedModel({ nodeIndex: 0 });
    const { downloadAction, version } = owned.getPlan();
    owned[Symbol.dispose]();
    return { exact: pick.exact, catalog: catalog.map(({ name }) => name), again, downloadAction, version };
  },
  async system(client) {
    const version = await client.system.getLMStudioVersion();
    await client.system.unstable_setExperimentFlag("x", true);
    const flags = await client.system.unstable_getExperimentFlags();
    await client.system.notify({ title: "Hello" });
    return { version, flags, info: await client.system.getInfo() };
  },
  async logs(client) {
    const seen = {};
    const enough = new Promise((done) => {
      const stop = client.diagnostics.unstable_streamLogs(({ data }) => {
        (seen[data.type] ??= []).push(data.content ?? data.message ?? data.modelIdentifier);
        if (data.message?.endsWith("unloaded")) {
          stop();
          done();
        }
      });
    });
    // Nothing says that the stream has begun, and what happens before is not in it.
    while (!seen["server.log"]) await client.system.notify({ title: "Are you listening?" });
    const model = await client.llm.model(CHAT, { verbose: false });
    await model.respond("Hello");
    const again = await client.llm.load(CHAT, { verbose: false });
    await again.unload();
    await enough;
    return seen;
  },
  async pluginTools(client) {
    const session = await client.plugins.pluginTools("mcp/sums", { workingDirectory: "/" });
    const tools = Object.fromEntries(session.tools.map((each) => [each.name, each]));
    const call = (name, parameters = {}) => toolCall(tools[name], parameters);
    tools.add.checkParameters({ a: 1, b: 2 });
    const aborted = call("wait");
    await aborted.until("waiting");
    aborted.abort.abort(new Error("stop it"));
    const found = {
      tools: session.tools.map(({ type, name, description, pluginIdentifier }) => ({
        type,
        name,
        description,
        pluginIdentifier,
      })),
      checked: await failure(async () => tools.add.checkParameters({ a: 1 })),
      added: await call("add", { a: 2, b: 3 }).result,
      nothing: await call("nothing").result,
      met: await Promise.all(["a", "b"].map((name) => call("meet", { name }).result)),
      failed: await failure(() => call("fail").result),
      invalid: await failure(() => call("add", { a: "x", b: 1 }).result),
      aborted: await failure(() => aborted.result),
    };
    const reporting = call("report");
    await reporting.result;
    const unknown = session.makeTool({ function: { name: "unheardOf" } }); // as if a tool had vanished
    const unknownTool = await failure(() => toolCall(unknown, {}).result);
    const running = call("wait");
    await running.until("waiting");
    session[Symbol.dispose]();
    return {
      ...found,
      reports: reporting.reports,
      unknown: unknownTool,
      disposed: await failure(() => running.result),
      afterwards: await failure(() => call("add", { a: 1, b: 1 }).result),
      unknownPlugin: await failure(() => client.plugins.pluginTools("mcp/unheard-of")),
    };
  },
  async pluginToolsInAct(client) {
    const session = await client.plugins.pluginTools("mcp/sums");
    const model = await client.llm.model(CHAT, { verbose: false });
    const messages = [];
    await model.act("What is 2 + 3?", session.tools, { onMessage: (message) => messages.push(message.getText()) });
    session[Symbol.dispose]();
    return messages;
  },
  async generator(client) {
    const generator = client.plugins.createGeneratorHandle("me/writer");
    const fragments = [];
    const { content, reasoningContent, nonReasoningContent } = await generator.respond("Think about it", {
      onPredictionFragment: ({ content }) => fragments.push(content),
    });
    const messages = [];
    await generator.act("What is 2 + 3?", [adder()], { onMessage: (message) => messages.push(message.getText()) });
    const waiting = generator.respond("Wait");
    const parts = [];
    for await (const { content } of waiting) {
      parts.push(content);
      waiting.cancel();
    }
    return {
      content,
      reasoningContent,
      nonReasoningContent,
      fragments: fragments.join(""),
      messages,
      cancelled: [parts, (await waiting).content],
      failed: await failure(() => generator.respond("Fail").result()),
      unknown: await failure(() => client.plugins.createGeneratorHandle("me/nobody").respond("Hello").result()),
      noGenerator: await failure(() => client.plugins.createGeneratorHandle("mcp/sums").respond("Hello").result()),
      noTools: await failure(() => client.plugins.pluginTools("me/writer")),
    };
  },
  async token(client) {
    return { loaded: (await client.llm.listLoaded()).length };
  },
  async rejected(client) {
    return failure(() => client.llm.listLoaded());
  },
};

const client = new LMStudioClient({ baseUrl: url, ...(token ? { apiToken: token } : {}) });
console.log(JSON.stringify(await STEPS[step](client)));
await client[Symbol.asyncDispose]();
