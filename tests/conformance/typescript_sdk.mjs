// The official TypeScript SDK, and what the programs in TypeScript share. The first argument is the folder that has it.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

export const pathOfSdk = createRequire(join(process.argv[2], "package.json")).resolve("@lmstudio/sdk");

export const sdk = await import(pathToFileURL(pathOfSdk));
export const requireOfSdk = createRequire(pathOfSdk);

export const CHAT = "qwen2.5-7b-instruct";
export const EMBEDDING = "text-embedding-nomic-embed-text-v1.5";
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const SCHEMA = {
  type: "object",
  properties: { title: { type: "string" }, pages: { type: "integer" } },
  required: ["title", "pages"],
};
