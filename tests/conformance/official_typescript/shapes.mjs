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
const void_ = ({ typeName }) => typeName === "ZodVoid" || typeName === "ZodUndefined";
const parts = (schemas) => named(Object.entries(schemas).map(([part, of]) => [part, void_(of._def) ? z.never() : of]));
const rpc = ({ name, parameter, returns }) => [name, parts({ parameter, result: returns })];
const channel = ({ name, creationParameter, toServerPacket, toClientPacket }) => [
  name,
  parts({ creationParameter, client: toServerPacket, server: toClientPacket }),
];

const namespaces = Object.keys(client).filter((name) => name.endsWith("Port"));
const groups = namespaces.map((name) => {
  const { backendInterface } = client[name];
  const endpoints = [...backendInterface.getAllRpcEndpoints().map(rpc), ...backendInterface.getAllChannelEndpoints().map(channel)];
  return [name.replace(/Port$/, ""), named(endpoints)];
});
groups.push(["settings", named([...inner.globalConfigSchematics.fields.values()].map((field) => [field.fullKey, field.schema]))]);
groups.push(["frames", named([["client", inner.clientToServerMessageSchema], ["server", inner.serverToClientMessageSchema]])]);
groups.push(["error", inner.serializedLMSExtendedErrorSchema.extend({ displayData: inner.errorDisplayDataSchema.optional() })]);

const { properties } = zodToJsonSchema(named(groups), { $refStrategy: "root" });
// Python has no classes of characters in its patterns.
const text = (schema) => JSON.stringify(schema, (key, value) => (key === "pattern" && value.includes("\\p{") ? undefined : value));
const lines = ([name, schema]) => {
  if (!(schema.properties && schema.type === "object") || name === "error") return `${JSON.stringify(name)}: ${text(schema)}`;
  const members = Object.entries(schema.properties).map(([member, of]) => `${JSON.stringify(member)}: ${text(of)}`);
  return `${JSON.stringify(name)}: {"properties": {\n${members.join(",\n")}\n}}`;
};
process.stdout.write(`{"properties": {\n${Object.entries(properties).map(lines).join(",\n")}\n}}\n`);
