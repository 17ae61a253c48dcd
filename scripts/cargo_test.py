# SPDX-License-Identifier: Apache-2.0
"""Runs `cargo test` for CTest: writes what came of each test as JUnit XML, where `colcon test-result` reads it.

Arguments: the cargo command, the XML file.
"""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

LINE = re.compile(r"^test (\S+) \.\.\. (ok|FAILED|ignored)")
# What the tests need from the network, and how it is made.
MADE_BY = {
    "contracts/node_modules": "npm ci --prefix contracts",
    "target/venv/web3/.installed": "scripts/venv web3",
    "target/venv/mailauth/.installed": "scripts/venv mailauth",
    "target/venv/slither/.installed": "scripts/venv slither",
}


def run(command: list[str]) -> tuple[int, list[tuple[str, str]], str]:
    """Passes on what the command prints; gives its exit code, each test with its result, and the last lines."""
    results, last = [], []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout
    for line in process.stdout:
        print(line, end="", flush=True)
        last = [*last[-99:], line]
        if found := LINE.match(line):
            results.append((found[1], found[2]))
    return process.wait(), results, "".join(last)


def report(code: int, results: list[tuple[str, str]], last: str) -> xml.ElementTree:
    suite = xml.Element("testsuite", name="posthorn")
    for name, result in results:
        path, _, function = name.rpartition("::")
        case = xml.SubElement(suite, "testcase", classname=f"posthorn.{path.replace('::', '.')}", name=function)
        if result == "FAILED":
            xml.SubElement(case, "failure", message="failed; why is in the output of the suite")
        elif result == "ignored":
            xml.SubElement(case, "skipped")
    failures = sum(result == "FAILED" for _, result in results)
    # It did not compile or ran no test. An error, because a suite without tests would count as passed.
    errors = int(not failures and (code != 0 or not results))
    if errors:
        case = xml.SubElement(suite, "testcase", classname="posthorn", name="cargo_test")
        xml.SubElement(case, "error", message=f"cargo test: exit code {code}, {len(results)} tests ran").text = printable(last)
    suite.set("tests", str(len(results) + errors))
    suite.set("failures", str(failures))
    suite.set("errors", str(errors))
    suite.set("skipped", str(sum(result == "ignored" for _, result in results)))
    return xml.ElementTree(suite)


def printable(text: str) -> str:
    """Without the control characters that XML does not allow."""
    return "".join(character for character in text if character.isprintable() or character in "\t\n")


def main() -> None:
    cargo, file = sys.argv[1], pathlib.Path(sys.argv[2])
    missing = [path for path in MADE_BY if not pathlib.Path(path).exists()]
    if not missing:
        code, results, last = run([cargo, "test", "--locked", "--release"])
    else:
        last = "".join(f"{path} is missing: run `{MADE_BY[path]}`, which needs a network, then test again\n" for path in missing)
        code, results = 1, []
        print(last, end="", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    report(code, results, last).write(file, encoding="utf-8", xml_declaration=True)
    sys.exit(code or int(not results))


if __name__ == "__main__":
    main()
