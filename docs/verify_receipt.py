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
import sys


class Refused(Exception):
    """Why a receipt does not hold."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def octets(fields: dict, name: str) -> bytes:
    """The bytes of a field that is a list of numbers."""
    if type(fields[name]) is not list:
        raise Refused(f"{name} is no list of bytes")
    return bytes(fields[name])


def sized(fields: dict, name: str, size: int, *, is_text: bool = False) -> bytes:
    """The same, or those of one that is hex digits. Each field has one size, so that no byte can move to the next."""
    data = bytes.fromhex(fields[name].removeprefix("0x")) if is_text else octets(fields, name)
    if len(data) != size:
        raise Refused(f"{name} has {len(data)} bytes instead of {size}")
    return data


def number(fields: dict, name: str, bits: int) -> bytes:
    """The number as `bits` bits, big-endian."""
    if type(fields[name]) is not int:
        raise Refused(f"{name} is no integer")
    return fields[name].to_bytes(bits // 8, "big")


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
        number(receipt, "index", 64),
        number(recorded_at, "sec", 64),
        number(recorded_at, "nanosec", 32),
        name(entry, "kind", 32),
        name(entry, "source", 64),
        sized(entry, "subject", 32, is_text=True),
        digest,
    ])
    leaf = sha256(b"\0" + content)
    if leaf != sized(receipt, "leaf", 32):
        raise Refused("leaf is not the hash of what the receipt says")
    return leaf


def root_of(receipt: dict, leaf: bytes) -> bytes:
    """Step 2: the root to which the proof leads (RFC 9162, section 2.1.3.2)."""
    place, last = receipt["index"] - receipt["batch_first"], receipt["batch_size"] - 1
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
    return node


def verify(receipt: dict) -> bytes:
    """Steps 1 and 2: whether the receipt agrees with itself. Returns the root.

    Raises Refused, or KeyError, TypeError, ValueError or OverflowError for what is no receipt."""
    return root_of(receipt, leaf_of(receipt))


def verify_on_chain(receipt: dict, rpc: str, contract: str) -> None:
    """Step 3: whether `contract` anchored the root, on the chain that the node at `rpc` follows."""
    from web3 import Web3
    from web3.exceptions import TransactionNotFound

    node = Web3(Web3.HTTPProvider(rpc, request_kwargs={"timeout": 30}))
    if node.eth.chain_id != receipt["chain_id"]:
        raise Refused(f"the receipt is of chain {receipt['chain_id']}, the node of chain {node.eth.chain_id}")
    if bytes.fromhex(contract.removeprefix("0x")) != sized(receipt, "contract", 20, is_text=True):
        raise Refused(f"the receipt is of contract {receipt['contract']}, not of {contract}")
    try:
        mined = node.eth.get_transaction_receipt(sized(receipt, "transaction", 32, is_text=True))
    except TransactionNotFound:
        raise Refused("the chain does not have the transaction") from None
    block = (mined["blockNumber"], bytes(mined["blockHash"]))
    if mined["status"] != 1 or block != (receipt["block_number"], sized(receipt, "block_hash", 32, is_text=True)):
        raise Refused("the transaction failed, or is in another block than the receipt says")
    if bytes(node.eth.get_block(receipt["block_number"])["hash"]) != block[1]:
        raise Refused("the block is no longer part of the chain")
    topics = [
        bytes(Web3.keccak(text="Anchored(uint64,uint32,bytes32)")),
        receipt["batch_first"].to_bytes(32, "big"),
        sized(receipt, "root", 32),
    ]
    count = receipt["batch_size"].to_bytes(32, "big")
    for log in mined["logs"]:
        is_ours = bytes.fromhex(log["address"].removeprefix("0x")) == bytes.fromhex(contract.removeprefix("0x"))
        if is_ours and [bytes(topic) for topic in log["topics"]] == topics and bytes(log["data"]) == count:
            return
    raise Refused("the transaction did not anchor this root")


def main() -> int:
    parser = argparse.ArgumentParser(description="Verifies a receipt of posthorn's evidence ledger.")
    parser.add_argument("receipt", type=argparse.FileType(encoding="utf-8"), help="file of posthorn prove; - reads standard input")
    parser.add_argument("--rpc", help="JSON-RPC URL of a node that you trust")
    parser.add_argument("--contract", help="address of the ledger's contract, from a source that you trust")
    arguments = parser.parse_args()
    if bool(arguments.rpc) != bool(arguments.contract):
        parser.error("--rpc and --contract go together")
    try:
        receipt = json.load(arguments.receipt)
        verify(receipt)
        if not arguments.rpc:
            print("the receipt agrees with itself; whether its root is on the chain was not asked (--rpc)")
            return 0
        verify_on_chain(receipt, arguments.rpc, arguments.contract)
    except Refused as refused:
        print(f"the receipt does not hold: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"the node cannot be asked: {error}", file=sys.stderr)
        return 1
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        print(f"not a receipt: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    entry = receipt["entry"]
    print(f"{entry['kind']} {entry['subject']}, leaf {receipt['index']}: anchored in block {receipt['block_number']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
