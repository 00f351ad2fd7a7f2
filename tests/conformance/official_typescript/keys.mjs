// The table of settings in the SDK: `node keys.mjs FOLDER`. Prints the default of each as JSON, by its key.
//
// The SDK does not export the table, so its bundle is loaded with one more line.

import { readFileSync } from "node:fs";
import { Module } from "node:module";

import { pathOfSdk } from "../typescript_sdk.mjs";

const bundle = new Module(pathOfSdk);
bundle.filename = pathOfSdk;
bundle.paths = Module._nodeModulePaths(pathOfSdk);
bundle._compile(`${readFileSync(pathOfSdk, "utf8")}\nexports.table = globalConfigSchematics;`, pathOfSdk);

const defaults = [...bundle.exports.table.fields.values()].map(({ fullKey, defaultValue }) => [fullKey, defaultValue]);
process.stdout.write(JSON.stringify(Object.fromEntries(defaults)));
