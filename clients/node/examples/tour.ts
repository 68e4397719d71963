/** The examples of README.md, so that they compile. */

import { type Client, connect, HeadwayError, type Job, NotFoundError } from "@headway/client";

export function connecting(): Client {
  const client = connect({
    target: "https://headway.example:50051",
    ca: "/etc/ssl/headway.pem",
    token: "t0ken",
    session: "a secret of the caller",
    exitTimeout: 5_000,
    logger: console,
  });
  return client;
}

export async function scope(client: Client, work: (job: Job) => Promise<object>): Promise<void> {
  await using job = await client.create("Nightly import", { size: 40_000, unit: "records" });
  await job.finish(await work(job));
}

export function updates(job: Job): void {
  job.progress = 120;
  job.advance(3);
  job.count("added");
  job.recordError("ocm123", "no title", "NO_TITLE");
  job.message = "second file";
  job.size = 50_000;
  job.set({ file: "b.mrc" });
  job.checkpoint({ offset: 4711 });
  job.part("worker-2").advance();
}

export async function ending(job: Job, error: unknown): Promise<void> {
  await job.flush();
  await job.fail(error);
  await job.fail("nobody needs it any more", "CANCELLED");
}

export async function cancelling(client: Client, job: Job, url: string): Promise<void> {
  const page = await fetch(url, { signal: job.signal });
  job.signal.throwIfAborted();
  job.stopSignal.addEventListener("abort", () => console.error(job.stopped?.reason));
  await client.cancel(job.id, { reason: `not needed: ${page.status}`, grace: 30_000 });
}

export async function resuming(client: Client, id: string): Promise<void> {
  const job = await client.resume(id);
  const offset = (await job.get("offset")) ?? 0;
  await job.run(async () => {
    job.message = `goes on at ${offset}`;
  });
}

export async function starting(client: Client): Promise<void> {
  const job = await client.create("Nightly import", { key: "nightly-2026-11" });
  const offset = (await job.get("offset")) ?? 0;
  await job.run(async () => {
    job.message = `begins at ${offset}`;
  });
}

export async function reading(client: Client, id: string): Promise<void> {
  const { progress, size, status, estimate } = await client.get(id);
  for await (const state of client.watch(id, { timeout: 60_000 })) console.log(state.progress, state.status);
  for await (const state of client.list({ statuses: ["RUNNING"], labels: { shelf: "7" } })) console.log(state.name);
  for await (const change of client.watchSession()) console.log("job" in change ? change.job.id : change.removed);
  const last = await client.wait(id, { signal: AbortSignal.timeout(60_000) });
  const results = await client.results(id);
  const { offset } = await client.variables(id, ["offset"]);
  const { first, total } = await client.recordErrors(id);
  await client.clear(id);
  console.log({ progress, size, status, estimate, last, results, offset, first, total });
}

export async function catching(client: Client, id: string): Promise<void> {
  try {
    await client.get(id);
  } catch (error) {
    if (error instanceof NotFoundError) return;
    if (error instanceof HeadwayError) console.error(error.code, error.reason, error.fields, error.retryAfter);
  }
}

export async function flushing(client: Client): Promise<void> {
  const { sent, refused, waiting } = await client.flushSpool();
  console.log(sent, refused, waiting);
}
