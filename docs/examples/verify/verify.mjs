// Verifies a delivery of batchd with Node's own modules (18 or newer).
//
// Usage: node verify.mjs WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const key = Buffer.from(process.env.BATCHD_WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const TOLERANCE = 300; // seconds

/** The event; throws. `body` is a Buffer with the bytes as they came, such as `express.raw()` gives. */
export function verified(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  // Written so that what is not a number is refused, too.
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE)) {
    throw new Error("the timestamp is too old, or a clock is wrong");
  }
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  for (const item of headers["webhook-signature"].split(" ")) {
    const [version, signature] = item.split(",", 2);
    const given = Buffer.from(signature ?? "", "base64");
    if (version === "v1" && given.length === expected.length && timingSafeEqual(given, expected)) {
      return JSON.parse(body.toString("utf8"));
    }
  }
  throw new Error("no signature matches");
}

const [id, timestamp, signature] = process.argv.slice(2);
const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
try {
  const event = verified(headers, readFileSync(0));
  console.log(event.type, event.data.id);
} catch (error) {
  console.error(`refused: ${error.message}`);
  process.exit(1);
}
