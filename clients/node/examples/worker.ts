import { readFile } from "node:fs/promises";
import { connect } from "@headway/client";

const client = connect();
const lines = (await readFile("titles.txt", "utf8")).split("\n");

await client.run("Count titles", { invoker: "worker.ts", unit: "lines" }, async (job) => {
  for await (const line of job.track(lines)) {
    if (line.trim()) job.count("titles");
    else job.recordError("a line", "it is empty", "EMPTY");
  }
  job.results = { lines: lines.length };
});
await client.close();
