// Every endpoint of every interface in the SDK: `node endpoints.mjs FOLDER URL list|call|commandLine SECONDS`.
//
// `list` prints them, each with the smallest parameter that its schema accepts. `call` calls each of them through the
// SDK and prints what came of it. `commandLine` asks what the official command line asks before its own work.
// All print one line of JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const [folder, url, step, seconds] = process.argv.slice(2);
const resolve = createRequire(join(folder, "package.json")).resolve;
const { LMStudioClient } = await import(pathToFileURL(resolve("@lmstudio/sdk")));

const KINDS = { rpc: "Rpc", channel: "Channel", signal: "Signal", writableSignal: "WritableSignal" };

// The smallest value that each kind of schema accepts.
const SMALLEST = {
  ZodVoid: () => undefined,
  ZodUndefined: () => undefined,
  ZodOptional: () => undefined,
  ZodDefault: () => undefined,
  ZodNullable: () => null,
  ZodAny: () => ({}),
  ZodUnknown: () => ({}),
  ZodBoolean: () => true,
  ZodString: () => "a",
  ZodNumber: ({ checks }) => Math.max(1, ...checks.filter(({ kind }) => kind === "min").map(({ value }) => value)),
  ZodArray: () => [],
  ZodRecord: () => ({}),
  ZodLiteral: ({ value }) => value,
  ZodEnum: ({ values }) => values[0],
  ZodNativeEnum: ({ values }) => Object.values(values)[0],
  ZodUnion: ({ options }) => smallest(options[0]),
  ZodDiscriminatedUnion: ({ options }) => smallest(options[0]),
  ZodLazy: ({ getter }) => smallest(getter()),
  ZodEffects: ({ schema }) => smallest(schema),
  ZodObject: ({ shape }) =>
    Object.fromEntries(Object.entries(shape()).map(([name, schema]) => [name, smallest(schema)])),
};

const smallest = (schema) => SMALLEST[schema._def.typeName](schema._def);

const endpointsOf = ({ backendInterface }) =>
  Object.entries(KINDS).flatMap(([kind, name]) =>
    backendInterface[`getAll${name}Endpoints`]().map((endpoint) => {
      const schema = endpoint.parameter ?? endpoint.creationParameter;
      const parameter = smallest(schema);
      schema.parse(parameter);
      return { kind, name: endpoint.name, parameter };
    }),
  );

const list = (client) =>
  Object.entries(client).flatMap(([name, port]) =>
    port?.backendInterface
      ? endpointsOf(port).map((endpoint) => ({ namespace: name.replace(/Port$/, ""), ...endpoint }))
      : [],
  );

const channelEnds = (port, name, parameter) =>
  new Promise((done) => {
    const packets = [];
    const channel = port.createChannel(name, parameter, ({ type }) => packets.push(type));
    channel.onError.subscribeOnce((error) => done({ error: error.message, packets }));
    channel.onClose.subscribeOnce(() => done({ packets }));
  });

const rpcEnds = async (port, name, parameter) => {
  try {
    return { result: (await port.callRpc(name, parameter)) ?? null };
  } catch (error) {
    return { error: error.message };
  }
};

const inTime = (work) =>
  Promise.race([work, new Promise((done) => setTimeout(() => done(null), 1000 * seconds).unref())]);

const call = (client) =>
  Promise.all(
    list(client).map(async ({ namespace, kind, name, parameter }) => {
      const ends = kind === "rpc" ? rpcEnds : channelEnds;
      return { namespace, name, end: await inTime(ends(client[`${namespace}Port`], name, parameter)) };
    }),
  );

const commandLine = async (client) => ({
  link: await client.repository.lmLink.status(),
  staffPicks: await client.repository.unstable.fuzzyFindStaffPicks({ searchTerm: "qwen" }),
  isAuthenticated: await client.repository.isAuthenticated(),
  engines: await client.runtime.engine.list(),
  selections: (await client.runtime.engine.getSelections()).size,
  downloaded: (await client.system.listDownloadedModels()).length,
  loaded: (await client.llm.listLoaded()).length + (await client.embedding.listLoaded()).length,
});

const client = new LMStudioClient({ baseUrl: url });
console.log(JSON.stringify(await { list, call, commandLine }[step](client)));
process.exit(); // open channels would keep the process alive
