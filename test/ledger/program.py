# SPDX-License-Identifier: Apache-2.0
"""Runs docs/verify_receipt.py on receipts from standard input, and prints for each whether it is proven, and whether it is
as docs/receipt.schema.json says."""

import io
import json
import sys

import jsonschema

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import verify_receipt  # noqa: E402

with open(f"{sys.argv[1]}/receipt.schema.json", encoding="utf-8") as file:
    schema = jsonschema.Draft202012Validator(json.load(file))


def is_proven(case: dict) -> bool:
    try:
        receipt = verify_receipt.read(io.StringIO(case["text"]))
        verify_receipt.verify(receipt)
        verify_receipt.verify_in_block(receipt, case["hash"], case["contract"])
    except (verify_receipt.Refused, ValueError):
        return False
    return True


cases = json.load(sys.stdin)
print(json.dumps([[is_proven(case), schema.is_valid(json.loads(case["text"]))] for case in cases]))
