// Every endpoint of every interface in the SDK: `node endpoints.mjs FOLDER URL list|call|commandLine SECONDS`.
//
// `list` prints them, with the smallest parameter that the schema accepts, and then with each other form that one part
// of it can have. `call` makes all these calls through the SDK and prints what came of them. `commandLine` asks what the official command line asks before its own work.
// All print one line of JSON.

import { sdk } from "../typescript_sdk.mjs";

const [url, step, seconds] = process.argv.slice(3);
const { LMStudioClient } = sdk;

const KINDS = { rpc: "Rpc", channel: "Channel", signal: "Signal", writableSignal: "WritableSignal" };

// Values that each kind of schema accepts: the smallest one first, then the other forms that it has.
const VALUES = {
  ZodVoid: () => [undefined],
  ZodUndefined: () => [undefined],
  ZodOptional: ({ innerType }) => [undefined, ...valuesOf(innerType)],
  ZodDefault: ({ innerType }) => [undefined, ...valuesOf(innerType)],
  ZodNullable: ({ innerType }) => [null, ...valuesOf(innerType)],
  ZodAny: () => [{}],
  ZodUnknown: () => [{}],
  ZodBoolean: () => [true, false],
  ZodString: () => ["a"],
  ZodNumber: ({ checks }) => [
    Math.max(1, ...checks.filter(({ kind }) => kind === "min").map(({ value }) => value)),
  ],
  ZodArray: () => [[]],
  ZodTuple: ({ items }) => [items.map((item) => valuesOf(item)[0])],
  ZodRecord: () => [{}],
  ZodLiteral: ({ value }) => [value],
  ZodEnum: ({ values }) => [values[0]],
  ZodNativeEnum: ({ values }) => [Object.values(values)[0]],
  ZodUnion: ({ options }) => options.flatMap(valuesOf),
  ZodDiscriminatedUnion: ({ options }) => options.flatMap(valuesOf),
  ZodLazy: ({ getter }) => valuesOf(getter()).slice(0, 1), // may contain itself
  ZodEffects: ({ schema }) => valuesOf(schema),
  ZodObject: ({ shape }) => {
    const fields = Object.entries(shape()).map(([name, schema]) => [name, valuesOf(schema)]);
    const smallest = Object.fromEntries(fields.map(([name, [first]]) => [name, first]));
    const others = fields.flatMap(([name, [, ...rest]]) => rest.map((value) => ({ ...smallest, [name]: value })));
    return [smallest, ...others];
  },
};

const valuesOf = (schema) => VALUES[schema._def.typeName](schema._def);

const endpointsOf = ({ backendInterface }) =>
  Object.entries(KINDS).flatMap(([kind, name]) =>
    backendInterface[`getAll${name}Endpoints`]().flatMap((endpoint) => {
      const schema = endpoint.parameter ?? endpoint.creationParameter;
      const [smallest, ...others] = valuesOf(schema);
      schema.parse(smallest);
      const valid = others.filter((parameter) => schema.safeParse(parameter).success); // some exclude each other
      return [smallest, ...valid].map((parameter) => ({ kind, name: endpoint.name, parameter }));
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

const callAll = (client, endpoints) =>
  Promise.all(
    endpoints.map(async ({ namespace, kind, name, parameter }) => {
      const ends = kind === "rpc" ? rpcEnds : channelEnds;
      return { namespace, name, end: await inTime(ends(client[`${namespace}Port`], name, parameter)) };
    }),
  );

const call = async (client) => {
  const unloads = ({ name }) => name === "unloadModel"; // last, so that the others find loaded models
  const endpoints = list(client);
  const ends = await callAll(client, endpoints.filter((endpoint) => !unloads(endpoint)));
  return [...ends, ...(await callAll(client, endpoints.filter(unloads)))];
};

const commandLine = async (client) => ({
  link: await client.repository.lmLink.status(),
  staffPicks: (await client.repository.unstable.fuzzyFindStaffPicks({ searchTerm: "A", limit: 1 })).map(
    ({ owner, name }) => `${owner}/${name}`,
  ),
  isAuthenticated: await client.repository.isAuthenticated(),
  engines: await client.runtime.engine.list(),
  selections: (await client.runtime.engine.getSelections()).size,
  downloaded: (await client.system.listDownloadedModels()).length,
  loaded: (await client.llm.listLoaded()).length + (await client.embedding.listLoaded()).length,
});

const client = new LMStudioClient({ baseUrl: url });
const found = `${JSON.stringify(await { list, call, commandLine }[step](client))}\n`;
process.stdout.write(found, () => process.exit()); // open channels would keep the process alive
