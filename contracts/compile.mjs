// Compiles the contracts into artifacts/<name>.json; with --check compares instead, and fails naming what differs.
// The same sources and the pinned compiler give the same bytes on every machine.
// With --input it prints the compiler's input.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NAMES, compile, here, input, version } from "./standard.mjs";

if (process.argv.slice(2).includes("--input")) {
  console.log(JSON.stringify(input));
  process.exit(0);
}
const check = process.argv.slice(2).includes("--check");
const output = compile(input);
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
    compiler: version,
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
