#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verifies a receipt of posthorn's evidence ledger: a file as `posthorn prove` prints it, without posthorn.

    verify_receipt.py receipt.json
    verify_receipt.py receipt.json --rpc https://node.example --contract 0x...

The first form checks that the receipt agrees with itself, with nothing but Python's standard library. The second also
asks an Ethereum node for the root, with web3.py (`pip install web3`). Take the node and the contract's address from
somebody you trust, not from whoever gave you the receipt. Exit code: 0 if the receipt holds, 1 if not.

docs/interfaces.md, "Verifying a receipt", is the specification.
"""

import argparse
import hashlib
import json
import re
import sys


class Refused(Exception):
    """Why a receipt does not hold."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def octets(fields: dict, name: str) -> bytes:
    """The bytes of a field that is a list of numbers."""
    value = fields[name]
    if type(value) is not list or any(type(byte) is not int for byte in value):
        raise Refused(f"{name} is no list of bytes")
    return bytes(value)


def sized(fields: dict, name: str, size: int) -> bytes:
    """The same, of one size, so that no byte can move to the next field."""
    data = octets(fields, name)
    if len(data) != size:
        raise Refused(f"{name} has {len(data)} bytes instead of {size}")
    return data


def digits(text: object, name: str, size: int, prefix: str = "") -> bytes:
    """The bytes that are written as hex digits, behind the prefix."""
    if type(text) is not str or not re.fullmatch(f"{prefix}[0-9a-fA-F]{{{2 * size}}}", text):
        raise Refused(f"{name} must be {prefix and prefix + ' and '}{2 * size} hex digits")
    return bytes.fromhex(text.removeprefix(prefix))


def number(fields: dict, name: str, bits: int) -> int:
    """The number, if it fits."""
    value = fields[name]
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise Refused(f"{name} is no integer of {bits} bits")
    return value


def big_endian(fields: dict, name: str, bits: int) -> bytes:
    return number(fields, name, bits).to_bytes(bits // 8, "big")


def name(fields: dict, which: str, size: int) -> bytes:
    """The name in ASCII, filled up with zeros."""
    text = fields[which].encode("ascii")
    if not 0 < len(text) <= size or b"\0" in text:
        raise Refused(f"{which} must have 1 to {size} characters")
    return text.ljust(size, b"\0")


def leaf_of(receipt: dict) -> bytes:
    """Step 1: the hash of what the receipt says (RFC 6962, section 2.1)."""
    entry, recorded_at = receipt["entry"], receipt["recorded_at"]
    digest, facts = sized(entry, "digest", 32), octets(receipt, "facts")
    if facts and sha256(facts) != digest:
        raise Refused("facts are not those that were recorded")
    content = b"".join([
        b"posthorn evidence v2\0\0",
        big_endian(receipt, "index", 64),
        big_endian(recorded_at, "sec", 64),
        big_endian(recorded_at, "nanosec", 32),
        name(entry, "kind", 32),
        name(entry, "source", 64),
        digits(entry["subject"], "subject", 32),
        digest,
    ])
    leaf = sha256(b"\0" + content)
    if leaf != sized(receipt, "leaf", 32):
        raise Refused("leaf is not the hash of what the receipt says")
    return leaf


def check_root(receipt: dict, leaf: bytes) -> None:
    """Step 2: whether the proof leads from the leaf to the root (RFC 9162, section 2.1.3.2)."""
    place = number(receipt, "index", 64) - number(receipt, "batch_first", 64)
    last = number(receipt, "batch_size", 32) - 1
    proof = octets(receipt, "inclusion_proof")
    if not 0 <= place <= last or len(proof) % 32:
        raise Refused("inclusion_proof is not one of this place in a batch of this size")
    node = leaf
    for at in range(0, len(proof), 32):
        sibling = proof[at : at + 32]
        if last == 0:
            raise Refused("inclusion_proof is too long")
        if place & 1 or place == last:
            node = sha256(b"\1" + sibling + node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = sha256(b"\1" + node + sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or node != sized(receipt, "root", 32):
        raise Refused("inclusion_proof does not lead to root")


def verify(receipt: dict) -> None:
    """Steps 1 and 2: whether the receipt agrees with itself.

    Raises Refused, or AttributeError, KeyError, TypeError or ValueError for what is no receipt."""
    check_root(receipt, leaf_of(receipt))


def verify_on_chain(receipt: dict, rpc: str, contract: str) -> None:
    """Step 3: whether `contract` anchored the root, on the chain that the node at `rpc` follows."""
    from web3 import Web3
    from web3.exceptions import TransactionNotFound

    node = Web3(Web3.HTTPProvider(rpc, request_kwargs={"timeout": 30}))
    ours = digits(contract, "--contract", 20, "0x")
    if node.eth.chain_id != number(receipt, "chain_id", 64):
        raise Refused(f"it is of chain {receipt['chain_id']}, the node of chain {node.eth.chain_id}")
    if digits(receipt["contract"], "contract", 20, "0x") != ours:
        raise Refused(f"it is of contract {receipt['contract']}, not of {contract}")
    try:
        mined = node.eth.get_transaction_receipt(digits(receipt["transaction"], "transaction", 32, "0x"))
    except TransactionNotFound:
        raise Refused("the chain does not have the transaction") from None
    number_and_hash = (number(receipt, "block_number", 64), digits(receipt["block_hash"], "block_hash", 32, "0x"))
    if mined["status"] != 1 or (mined["blockNumber"], bytes(mined["blockHash"])) != number_and_hash:
        raise Refused("the transaction failed, or is in another block than the receipt says")
    if bytes(node.eth.get_block(number_and_hash[0])["hash"]) != number_and_hash[1]:
        raise Refused("the block is no longer part of the chain")
    topics = [
        bytes(Web3.keccak(text="Anchored(uint64,uint32,bytes32)")),
        number(receipt, "batch_first", 64).to_bytes(32, "big"),
        sized(receipt, "root", 32),
    ]
    count = number(receipt, "batch_size", 32).to_bytes(32, "big")
    for log in mined["logs"]:
        is_ours = digits(log["address"], "address", 20, "0x") == ours
        if is_ours and [bytes(topic) for topic in log["topics"]] == topics and bytes(log["data"]) == count:
            return
    raise Refused("the transaction did not anchor this root")


def once(pairs: list) -> dict:
    """The object, if each of its fields is there once."""
    fields: dict = {}
    for field, value in pairs:
        if field in fields:
            raise Refused(f"{field} is there twice")
        fields[field] = value
    return fields


def check(arguments: argparse.Namespace) -> str:
    """What is proven, in words."""
    try:
        receipt = json.load(arguments.receipt, object_pairs_hook=once)
        verify(receipt)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Refused(f"not a receipt: {type(error).__name__}: {error}") from error
    if not arguments.rpc:
        return "the receipt agrees with itself; whether its root is on the chain was not asked (--rpc)"
    try:
        verify_on_chain(receipt, arguments.rpc, arguments.contract)
    except Refused:
        raise
    except ImportError as error:
        raise Refused(f"the node cannot be asked without web3.py (pip install web3): {error}") from error
    except Exception as error:  # Of the libraries below: what the node does not answer, or answers wrongly.
        raise Refused(f"the node cannot be asked: {type(error).__name__}: {error}") from error
    entry = receipt["entry"]
    return f"{entry['kind']} {entry['subject']}, leaf {receipt['index']}: anchored in block {receipt['block_number']}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Verifies a receipt of posthorn's evidence ledger.")
    parser.add_argument("receipt", type=argparse.FileType(encoding="utf-8"), help="file of posthorn prove; - reads standard input")
    parser.add_argument("--rpc", help="JSON-RPC URL of a node that you trust")
    parser.add_argument("--contract", help="address of the ledger's contract, from a source that you trust")
    arguments = parser.parse_args()
    if bool(arguments.rpc) != bool(arguments.contract):
        parser.error("--rpc and --contract go together")
    try:
        print(check(arguments))
    except Refused as refused:
        print(f"the receipt does not hold: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
