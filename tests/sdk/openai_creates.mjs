// OpenAI's SDK for Node uploads, creates, watches, reads and cancels through batchd, at providers of four interfaces.
//
// Arguments: the API's address, its token, and a file of requests for the model `m-1`. BATCHD_SDK_NODE_MODULES names the
// directory that holds the package `openai`.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.BATCHD_SDK_NODE_MODULES, "any.js"));
const OpenAI = require("openai");

const [api, token, file] = process.argv.slice(2);
const content = fs.readFileSync(file, "utf8");
const count = content.trim().split("\n").length;
const client = new OpenAI({ apiKey: token, baseURL: `${api}/v1`, maxRetries: 0 });
const create = (input, more = {}, options = {}) =>
  client.batches.create(
    { input_file_id: input.id, endpoint: "/v1/chat/completions", completion_window: "24h", ...more },
    options,
  );

const kept = await client.files.create({ file: fs.createReadStream(file), purpose: "batch" });
assert.equal(kept.bytes, content.length);
assert.equal(await (await client.files.content(kept.id)).text(), content);
for (const name of ["openai", "anthropic", "gemini", "mistral"]) {
  const prefixed = await client.files.create({
    file: await OpenAI.toFile(Buffer.from(content.replaceAll('"m-1"', `"${name}/m-1"`)), "p.jsonl"),
    purpose: "batch",
  });
  const ways = [
    await create(kept, { provider: name }),
    await create(kept, {}, { headers: { "x-batchd-provider": name } }),
    await create(prefixed),
  ];
  for (let batch of ways) {
    assert.equal(batch.batchd.provider, name);
    while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
      await new Promise((done) => setTimeout(done, 50));
      batch = await client.batches.retrieve(batch.id);
    }
    assert.equal(batch.status, "completed");
    const lines = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n");
    assert.equal(lines.length, count);
  }
}
const key = { idempotencyKey: "node-1", headers: { "x-batchd-provider": "mistral", "idempotency-key": "node-1" } };
assert.equal((await create(kept, {}, key)).id, (await create(kept, {}, key)).id);
await assert.rejects(create(kept), (error) => error instanceof OpenAI.BadRequestError && error.param === "provider");
const names = [];
for await (const each of client.files.list({ limit: 2 })) names.push(each.id);
assert.ok(names.includes(kept.id) && names.length >= 5);
console.log("openai for node: ok");
