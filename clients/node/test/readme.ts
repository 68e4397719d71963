/** Checks that the examples of README.md come from files that are compiled. */

import { readdirSync, readFileSync } from "node:fs";

const plain = (text: string) => text.replace(/^\s+/gm, "").trim();

const folder = "examples";
const files = readdirSync(folder).filter((name) => name.endsWith(".ts"));
const sources = files.map((name) => plain(readFileSync(`${folder}/${name}`, "utf8")));
const blocks = [...readFileSync("README.md", "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) =>
  plain(code ?? ""),
);
const strange = blocks.filter((block) => !sources.some((source) => source.includes(block)));
for (const block of strange) console.error(`README.md shows what is in no file of ${folder}/:\n\n${block}\n`);
process.exitCode = strange.length === 0 && blocks.length > 0 ? 0 : 1;
