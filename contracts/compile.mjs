// Compiles the contracts into artifacts/<name>.json; with --check compares instead, and fails naming what differs.
// The same sources and the pinned compiler give the same bytes on every machine.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const NAMES = ["EvidenceLedger", "SenderRegistry"];
const here = dirname(fileURLToPath(import.meta.url));
const check = process.argv.slice(2).includes("--check");

const input = {
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
// What a contract imports is a package of npm.
const imported = (path) => ({ contents: readFileSync(join(here, "node_modules", path), "utf8") });
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: imported }));
const complaints = output.errors || [];
if (complaints.length > 0) {
  console.error(complaints.map((complaint) => complaint.formattedMessage).join("\n"));
  process.exit(1);
}

let stale = 0;
for (const name of NAMES) {
  const contract = output.contracts[`${name}.sol`][name];
  const artifact = {
    abi: contract.abi,
    bytecode: `0x${contract.evm.bytecode.object}`,
    compiler: solc.version(),
  };
  const text = `${JSON.stringify(artifact, null, 2)}\n`;
  const file = join("artifacts", `${name}.json`);
  if (check) {
    let committed = "";
    try {
      committed = readFileSync(join(here, file), "utf8");
    } catch (error) {
      console.error(`contracts/${file}: ${error.message}`);
    }
    if (committed !== text) {
      console.error(`contracts/${file}: differs from what ${name}.sol compiles to; run 'npm run build --prefix contracts'`);
      stale += 1;
    }
  } else {
    mkdirSync(join(here, "artifacts"), { recursive: true });
    writeFileSync(join(here, file), text);
  }
}
process.exit(stale === 0 ? 0 : 1);
