// Prints the pages that the site's own search finds for each query: `node search.mjs WORKER INDEX`, with queries as JSON on stdin.

import { readFileSync } from "node:fs";
import { runInThisContext } from "node:vm";

const [worker, index] = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));

let receive;
const answers = [];
globalThis.self = globalThis;
globalThis.addEventListener = (_type, listener) => (receive = listener);
globalThis.postMessage = (message) => answers.push(message);
runInThisContext(worker);

const [SETUP, QUERY] = [0, 2];
await receive({ data: { type: SETUP, data: { ...JSON.parse(index), options: { suggest: true } } } });
const found = {};
for (const query of JSON.parse(readFileSync(0, "utf8"))) {
  answers.length = 0;
  await receive({ data: { type: QUERY, data: query } });
  found[query] = answers[0].data.items.map(([page]) => page.location.replace(/#.*/, ""));
}
console.log(JSON.stringify(found));
