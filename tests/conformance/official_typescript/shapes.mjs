// The shapes of the wire in the SDK, as JSON schemas: `node shapes.mjs FOLDER`. One line for each endpoint and setting.
//
// The SDK exports neither its frames nor its settings, so its bundle is loaded with one more line.

import { readFileSync } from "node:fs";
import { Module } from "node:module";

import { pathOfSdk, requireOfSdk } from "../typescript_sdk.mjs";

const INNER = [
  "globalConfigSchematics",
  "clientToServerMessageSchema",
  "serverToClientMessageSchema",
  "serializedLMSExtendedErrorSchema",
  "errorDisplayDataSchema",
];

const bundle = new Module(pathOfSdk);
bundle.filename = pathOfSdk;
bundle.paths = Module._nodeModulePaths(pathOfSdk);
bundle._compile(`${readFileSync(pathOfSdk, "utf8")}\nexports.inner = { ${INNER} };`, pathOfSdk);

const { zodToJsonSchema } = requireOfSdk("zod-to-json-schema");
const { z } = requireOfSdk("zod");
const { LMStudioClient, inner } = bundle.exports;
const client = new LMStudioClient({ baseUrl: "ws://127.0.0.1:1" }); // it connects on first use only

const named = (entries) => z.object(Object.fromEntries(entries));
const isVoid = ({ _def }) => _def.typeName === "ZodVoid" || _def.typeName === "ZodUndefined";
const parts = (schemas) =>
  named(Object.entries(schemas).map(([part, schema]) => [part, isVoid(schema) ? z.never() : schema]));

const endpointsOf = (name) => {
  const { backendInterface } = client[name];
  return named([
    ...backendInterface
      .getAllRpcEndpoints()
      .map(({ name, parameter, returns }) => [name, parts({ parameter, result: returns })]),
    ...backendInterface
      .getAllChannelEndpoints()
      .map(({ name, creationParameter, toServerPacket, toClientPacket }) => [
        name,
        parts({ creationParameter, client: toServerPacket, server: toClientPacket }),
      ]),
  ]);
};

const ports = Object.keys(client).filter((name) => name.endsWith("Port"));
const settings = [...inner.globalConfigSchematics.fields.values()];
const displayData = inner.errorDisplayDataSchema.optional();
const everything = named([
  ...ports.map((name) => [name.replace(/Port$/, ""), endpointsOf(name)]),
  ["settings", named(settings.map(({ fullKey, schema }) => [fullKey, schema]))],
  [
    "frames",
    parts({
      client: inner.clientToServerMessageSchema,
      server: inner.serverToClientMessageSchema,
      error: inner.serializedLMSExtendedErrorSchema.extend({ displayData }),
    }),
  ],
]);

// Python has no classes of characters in its patterns.
const withoutClasses = (key, value) => (key === "pattern" && value.includes("\\p{") ? undefined : value);
const line = ([name, schema]) => `${JSON.stringify(name)}: ${JSON.stringify(schema, withoutClasses)}`;
const group = ([name, schema]) =>
  `${JSON.stringify(name)}: {"properties": {\n${Object.entries(schema.properties).map(line).join(",\n")}\n}}`;

const { properties } = zodToJsonSchema(everything, { $refStrategy: "root" });
process.stdout.write(`{"properties": {\n${Object.entries(properties).map(group).join(",\n")}\n}}\n`);
