// SPDX-License-Identifier: Apache-2.0
// The contracts as the compiler's standard JSON, and the pinned compiler, which finds what they import.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

export const here = dirname(fileURLToPath(import.meta.url));
export const NAMES = ["EvidenceLedger", "SenderRegistry"];

export const input = {
  language: "Solidity",
  sources: Object.fromEntries(
    [...NAMES, "Owned"].map((name) => [`${name}.sol`, { content: readFileSync(join(here, `${name}.sol`), "utf8") }]),
  ),
  settings: {
    // Runs on every chain since the merge: no PUSH0.
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 10000 },
    // Without it a changed comment would change the bytecode.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

export const version = solc.version();

export function compile(standard) {
  // What a contract imports is a package of npm.
  const imported = (path) => ({ contents: readFileSync(join(here, "node_modules", path), "utf8") });
  return JSON.parse(solc.compile(JSON.stringify(standard), { import: imported }));
}
