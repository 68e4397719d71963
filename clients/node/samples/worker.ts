import { connect } from "@headway/client";

const batch = ["record 1", "record 2", "record 3"];

const client = connect();
await client.run("Stage MARC records", { size: batch.length, unit: "records" }, async (job) => {
  for await (const record of job.track(batch)) {
    job.message = `staging ${record}`;
    job.count("added");
  }
  job.results = { added: batch.length, updated: 0 };
});
await client.close();
