// What the SDK's own schemas make of frames on channels: `node schemas.mjs FOLDER <FRAMES`.
//
// Each line of the input is one frame: {"endpoint", "kind": "creation"|"packet", "direction": "client"|"server", "value"},
// and "namespace", if it is another one than "plugins".
// Prints, for each, a line of JSON: the list of what is wrong with it. The schemas strip what they do not know or cannot
// read; that is wrong here.

import { createInterface } from "node:readline";

import { sdk } from "../typescript_sdk.mjs";

const client = new sdk.LMStudioClient({ baseUrl: "ws://127.0.0.1:1" }); // it connects on first use only

const schemaOf = ({ namespace = "plugins", endpoint, kind, direction }) => {
  const channel = client[`${namespace}Port`].backendInterface.getChannelEndpoint(endpoint);
  if (kind === "creation") return channel.creationParameter;
  return direction === "client" ? channel.toServerPacket : channel.toClientPacket;
};

const stripped = (given, parsed, path) => {
  if (typeof given !== "object" || given === null) return [];
  return Object.entries(given).flatMap(([name, member]) => {
    const where = [...path, name];
    return parsed[name] === undefined ? [`${where.join(".")}: stripped`] : stripped(member, parsed[name], where);
  });
};

for await (const line of createInterface({ input: process.stdin })) {
  const frame = JSON.parse(line);
  const { success, data, error } = schemaOf(frame).safeParse(frame.value);
  const wrong = success
    ? stripped(frame.value, data, [])
    : error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  process.stdout.write(`${JSON.stringify(wrong)}\n`);
}
