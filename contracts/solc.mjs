// SPDX-License-Identifier: Apache-2.0
// The pinned compiler as a program named solc, for slither: `solc --version`, and `solc --standard-json` from stdin.
import { readFileSync } from "node:fs";
import { compile, version } from "./standard.mjs";

if (process.argv.includes("--version")) {
  console.log(`Version: ${version}`);
} else {
  console.log(JSON.stringify(compile(JSON.parse(readFileSync(0, "utf8")))));
}
