// SPDX-License-Identifier: Apache-2.0
// Runs the script of docs/verify_receipt.html on receipts from standard input, and prints for each whether it is proven.

import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
const html = readFileSync(process.argv[2], "utf8");
const script = /<script id="verifier">([\s\S]*?)<\/script>/.exec(html)[1];
const verify = new Function(`${script}; return verifyReceipt;`)();
const results = [];
for (const { text, contract, hash } of JSON.parse(readFileSync(0, "utf8"))) {
  results.push((await verify(text, { contract, blockHash: hash })).proven);
}
console.log(JSON.stringify(results));
