#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verifies a receipt of posthorn's evidence ledger: a file as `posthorn prove` prints it, without posthorn.

    verify_receipt.py receipt.json
    verify_receipt.py receipt.json --rpc https://node.example --contract 0x...
    verify_receipt.py receipt.json --block-hash 0x... --contract 0x...

The first form checks that the receipt agrees with itself, with nothing but Python's standard library. The second also
asks an Ethereum node for the root, with web3.py (`pip install web3`). The third asks nobody: the file's `block` proves
the root from the block's hash; chain_id is then as true as the hash is of that chain. It needs Keccak-256 from eth_utils,
which comes with web3.py. Take the node, the hash and the contract's address from somebody you trust, not from whoever
gave you the receipt. Nothing proves `stamp` and `revision`. Exit code: 0 if the receipt holds, 1 if not.

docs/interfaces.md, "Verifying a receipt", is the specification; docs/receipt.schema.json lists the fields.
"""

import argparse
import hashlib
import json
import re
import sys

MAX_CHARACTERS = 2 * 1024 * 1024
MAX_FACTS = 63
MAX_PROOF = 2048
# Kinds that only the authenticator records, and the bytes of their facts.
OWN_FACTS = {"mail_verdict": 51, "embedded_block": 8}

RECEIPT = [
    "index", "recorded_at", "entry", "facts", "leaf", "batch_first", "batch_size", "root", "inclusion_proof", "chain_id",
    "contract", "transaction", "block_number", "block_hash", "revision", "stamp",
]
ENTRY = ["kind", "source", "subject", "digest"]
TIME = ["sec", "nanosec"]
BLOCK = ["header", "transaction_index", "transaction_proof", "receipt_proof"]

# Places in a block's header (yellow paper, section 4.3). Later headers have more fields, none has fewer.
TRANSACTIONS_ROOT, RECEIPTS_ROOT, NUMBER, HEADER_FIELDS = 4, 5, 8, 15


class Refused(Exception):
    """Why a receipt does not hold."""


def shown(value: object) -> str:
    """What a stranger wrote, fit for a terminal."""
    return ascii(value)[:80]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def keccak256(data: bytes) -> bytes:
    """Ethereum's hash, which Python's standard library does not have."""
    from eth_utils import keccak

    return bytes(keccak(data))


def octets(fields: dict, name: str, most: int) -> bytes:
    """The bytes of a field that is a list of numbers."""
    value = fields[name]
    if type(value) is not list or any(type(byte) is not int or not 0 <= byte <= 255 for byte in value):
        raise Refused(f"{name} is no list of bytes")
    if len(value) > most:
        raise Refused(f"{name} has {len(value)} bytes, more than {most}")
    return bytes(value)


def sized(fields: dict, name: str, size: int) -> bytes:
    """The same, of one size, so that no byte can move to the next field."""
    data = octets(fields, name, MAX_CHARACTERS)
    if len(data) != size:
        raise Refused(f"{name} has {len(data)} bytes instead of {size}")
    return data


def digits(text: object, name: str, size: int, prefix: str = "") -> bytes:
    """The bytes that are written as hex digits, behind the prefix."""
    if type(text) is not str or not re.fullmatch(f"{prefix}[0-9a-fA-F]{{{2 * size}}}", text):
        raise Refused(f"{name} must be {prefix and prefix + ' and '}{2 * size} hex digits")
    return bytes.fromhex(text.removeprefix(prefix))


def prefixed(text: object, name: str) -> bytes:
    """The same behind 0x, of any size but none."""
    if type(text) is not str or not re.fullmatch("0x[0-9a-fA-F]+", text) or len(text) % 2:
        raise Refused(f"{name} must be 0x and two hex digits for each byte")
    return bytes.fromhex(text.removeprefix("0x"))


def number(fields: dict, name: str, bits: int) -> int:
    """The number, if it fits."""
    value = fields[name]
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise Refused(f"{name} is no integer of {bits} bits")
    return value


def big_endian(fields: dict, name: str, bits: int) -> bytes:
    return number(fields, name, bits).to_bytes(bits // 8, "big")


def name(fields: dict, which: str, size: int, pattern: str) -> bytes:
    """The name in ASCII, filled up with zeros."""
    text = fields[which]
    if type(text) is not str or len(text) > size or not re.fullmatch(pattern, text):
        raise Refused(f"{which} must have 1 to {size} characters and match {pattern}")
    return text.encode("ascii").ljust(size, b"\0")


def nodes(block: dict, which: str) -> list:
    """The nodes of a trie that a field lists."""
    if type(block[which]) is not list:
        raise Refused(f"block.{which} is no list")
    return [prefixed(node, f"block.{which}[{at}]") for at, node in enumerate(block[which])]


def check_fields(value: object, where: str, fields: list) -> dict:
    """The object, if it has these fields and no others."""
    if type(value) is not dict:
        raise Refused(f"not a receipt: {where} is no object")
    for field in fields:
        if field not in value:
            raise Refused(f"not a receipt: {where} has no {field}")
    for field in value:
        if field not in fields:
            raise Refused(f"not a receipt: {where} has the unknown field {shown(field)}")
    return value


def check_time(receipt: dict, which: str) -> None:
    """Whether a field is a moment."""
    time = check_fields(receipt[which], which, TIME)
    for field, most in [("sec", (1 << 64) - 1), ("nanosec", 10**9 - 1)]:
        if type(time[field]) is not int or not 0 <= time[field] <= most:
            raise Refused(f"{which}.{field} is no integer from 0 to {most}")


def check_form(receipt: object) -> None:
    """Whether the fields are those of a file of `posthorn prove`, or of a LedgerReceipt, which has no version."""
    fields = RECEIPT
    if type(receipt) is dict and "version" in receipt:
        if type(receipt["version"]) is not int or receipt["version"] != 1:
            raise Refused(f"version {shown(receipt['version'])}: this program knows version 1 only")
        fields = ["version", *fields, *["block"][: "block" in receipt]]
    check_fields(receipt, "the file", fields)
    check_fields(receipt["entry"], "entry", ENTRY)
    check_time(receipt, "recorded_at")
    check_time(receipt, "stamp")
    for field, bits in [("chain_id", 64), ("block_number", 64), ("revision", 32)]:
        number(receipt, field, bits)
    for field, size in [("contract", 20), ("transaction", 32), ("block_hash", 32)]:
        digits(receipt[field], field, size, "0x")
    if "block" in receipt:
        block = check_fields(receipt["block"], "block", BLOCK)
        prefixed(block["header"], "block.header")
        number(block, "transaction_index", 64)
        nodes(block, "transaction_proof")
        nodes(block, "receipt_proof")


def leaf_of(receipt: dict) -> bytes:
    """Step 1: the hash of what the receipt says (RFC 6962, section 2.1)."""
    entry, recorded_at = receipt["entry"], receipt["recorded_at"]
    digest, facts = sized(entry, "digest", 32), octets(receipt, "facts", MAX_FACTS)
    if facts and sha256(facts) != digest:
        raise Refused("facts are not those that were recorded")
    size = OWN_FACTS.get(entry["kind"], len(facts))
    if len(facts) != size:
        raise Refused(f"facts of kind {shown(entry['kind'])} must have {size} bytes")
    if entry["kind"] == "embedded_block" and facts != big_endian(receipt, "index", 64):
        raise Refused("an embedded_block must be at the index that is its number")
    content = b"".join([
        b"posthorn evidence v2\0\0",
        big_endian(receipt, "index", 64),
        big_endian(recorded_at, "sec", 64),
        big_endian(recorded_at, "nanosec", 32),
        name(entry, "kind", 32, "[a-z][a-z0-9_.]*"),
        name(entry, "source", 64, "(/[A-Za-z_][A-Za-z0-9_]*)+"),
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
    proof = octets(receipt, "inclusion_proof", MAX_PROOF)
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


def payload(data: bytes, at: int, where: str) -> tuple:
    """Whether the RLP item at this place is a list, and where its payload begins and ends (yellow paper, appendix B)."""
    first, begin = data[at], at + 1
    if first < 0x80:
        return False, at, begin
    is_list = first >= 0xC0
    size = first - (0xC0 if is_list else 0x80)
    if size > 55:
        length = data[begin : begin + size - 55]
        begin, size = begin + size - 55, int.from_bytes(length, "big")
        if size <= 55 or length[0] == 0:
            raise Refused(f"{where}: the length of an RLP item is not in its shortest form")
    if begin + size > len(data):
        raise Refused(f"{where}: an RLP item is cut off")
    if first == 0x81 and data[begin] < 0x80:
        raise Refused(f"{where}: an RLP item is not in its shortest form")
    return is_list, begin, begin + size


def items(data: bytes, where: str) -> list:
    """The items of an RLP list, each still encoded. One level is read at a time, so no depth can do harm."""
    is_list, at, end = payload(data, 0, where) if data else (False, 0, 0)
    if not is_list or end != len(data):
        raise Refused(f"{where} is no RLP list, or has bytes behind it")
    found = []
    while at < end:
        after = payload(data, at, where)[2]
        found.append(data[at:after])
        at = after
    return found


def string(item: bytes, where: str) -> bytes:
    """The bytes of an encoded item of a list."""
    is_list, begin, end = payload(item, 0, where)
    if is_list:
        raise Refused(f"{where} has an RLP list instead of bytes")
    return item[begin:end]


def shortest(value: int) -> bytes:
    """A number as RLP has it: big-endian without leading zeros; nothing for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def trie_key(index: int) -> bytes:
    """The RLP of a place in a block."""
    data = shortest(index)
    return data if len(data) == 1 and data[0] < 0x80 else bytes([0x80 + len(data)]) + data


def path_of(item: bytes, where: str) -> tuple:
    """Whether a node is a leaf, and its part of the path as hex digits (yellow paper, appendix C)."""
    text = string(item, where).hex()
    if not re.match("00|1|20|3", text):
        raise Refused(f"{where} has a path that is not hex-prefix encoded")
    return text[0] in "23", text[2 if text[0] in "02" else 1 :]


def value_at(root: bytes, key: bytes, proof: list, where: str) -> bytes:
    """What the Merkle-Patricia trie under this root has at the key (yellow paper, appendix D)."""
    path, unused, child = key.hex(), list(proof), b"\xa0" + root
    while True:
        if child[0] >= 0xC0 and len(child) < 32:
            node = child  # Shorter than its hash, so it stands in its parent.
        elif not unused or keccak256(unused[0]) != string(child, where):
            raise Refused(f"{where}: a node is missing, or not the one that the node before it names")
        else:
            node = unused.pop(0)
        parts = items(node, where)
        if len(parts) == 17 and path:
            child, path = parts[int(path[0], 16)], path[1:]
            continue
        if len(parts) != 2:
            raise Refused(f"{where}: a node is of no known form, or a branch where the path ends")
        is_leaf, own = path_of(parts[0], where)
        if is_leaf and own == path and not unused:
            return string(parts[1], where)
        if is_leaf or not own or not path.startswith(own):
            raise Refused(f"{where} leads to another place, or has nodes behind the leaf")
        child, path = parts[1], path[len(own) :]


def check_anchored(receipt: dict, logs: list) -> None:
    """Whether one of the logs, each an address, topics and data, is the contract's about this root."""
    contract = digits(receipt["contract"], "contract", 20, "0x")
    topics = [
        keccak256(b"Anchored(uint64,uint32,bytes32)"),
        number(receipt, "batch_first", 64).to_bytes(32, "big"),
        sized(receipt, "root", 32),
    ]
    if (contract, topics, number(receipt, "batch_size", 32).to_bytes(32, "big")) not in logs:
        raise Refused("the transaction did not anchor this root")


def check_outcome(receipt: dict, outcome: bytes) -> None:
    """Whether a transaction's receipt, encoded as EIP-2718 says, is of one that anchored the root."""
    where = "block.receipt_proof"
    fields = items(outcome[1:] if outcome[:1] < b"\x80" else outcome, where)
    if len(fields) != 4 or string(fields[0], where) != b"\1":
        raise Refused(f"{where} leads to no receipt of a transaction that succeeded")
    logs = [items(log, where) for log in items(fields[3], where)]
    if any(len(log) != 3 for log in logs):
        raise Refused(f"{where} leads to a malformed log")
    check_anchored(receipt, [
        (string(address, where), [string(topic, where) for topic in items(topics, where)], string(data, where))
        for address, topics, data in logs
    ])


def check_block(receipt: dict) -> None:
    """Whether the block with the receipt's block_hash has the transaction that anchored the root."""
    block = receipt["block"]
    header = prefixed(block["header"], "block.header")
    if keccak256(header) != digits(receipt["block_hash"], "block_hash", 32, "0x"):
        raise Refused("block.header does not have the hash block_hash")
    fields = items(header, "block.header")
    if len(fields) < HEADER_FIELDS:
        raise Refused(f"block.header has {len(fields)} fields, fewer than {HEADER_FIELDS}")
    if string(fields[NUMBER], "block.header") != shortest(number(receipt, "block_number", 64)):
        raise Refused("block.header is of another block_number")

    def found(place: int, which: str) -> bytes:
        root = string(fields[place], "block.header")
        if len(root) != 32:
            raise Refused("block.header has a root that is no hash")
        key = trie_key(number(block, "transaction_index", 64))
        return value_at(root, key, nodes(block, which), f"block.{which}")

    transaction = found(TRANSACTIONS_ROOT, "transaction_proof")
    if keccak256(transaction) != digits(receipt["transaction"], "transaction", 32, "0x"):
        raise Refused("block.transaction_proof leads to another transaction")
    check_outcome(receipt, found(RECEIPTS_ROOT, "receipt_proof"))


def check_contract(receipt: dict, contract: str) -> None:
    """Whether the receipt is of the contract that is trusted."""
    if digits(contract, "--contract", 20, "0x") != digits(receipt["contract"], "contract", 20, "0x"):
        raise Refused(f"it is of contract {receipt['contract']}, not of {contract}")


def verify_in_block(receipt: dict, block_hash: str, contract: str) -> None:
    """Step 3 without a node: whether `contract` anchored the root in the block with this hash."""
    check_contract(receipt, contract)
    if digits(block_hash, "--block-hash", 32, "0x") != digits(receipt["block_hash"], "block_hash", 32, "0x"):
        raise Refused(f"it is of block {receipt['block_hash']}, not of {block_hash}")
    if "block" not in receipt:
        raise Refused("it has no block, so only a node can tell (--rpc)")
    check_block(receipt)


def check_mined(receipt: dict, mined: dict) -> None:
    """Whether what a node says about the transaction is that it anchored the root in the receipt's block."""
    place = (receipt["block_number"], digits(receipt["block_hash"], "block_hash", 32, "0x"))
    if mined["status"] != 1 or (mined["blockNumber"], bytes(mined["blockHash"])) != place:
        raise Refused("the transaction failed, or is in another block than the receipt says")
    check_anchored(receipt, [
        (digits(log["address"], "address", 20, "0x"), [bytes(topic) for topic in log["topics"]], bytes(log["data"]))
        for log in mined["logs"]
    ])


def verify_on_chain(receipt: dict, rpc: str, contract: str) -> None:
    """Step 3: whether `contract` anchored the root, on the chain that the node at `rpc` follows."""
    from web3 import Web3
    from web3.exceptions import TransactionNotFound, Web3Exception

    node = Web3(Web3.HTTPProvider(rpc, request_kwargs={"timeout": 30}))
    if node.eth.chain_id != receipt["chain_id"]:
        raise Refused(f"it is of chain {receipt['chain_id']}, the node of chain {node.eth.chain_id}")
    check_contract(receipt, contract)
    try:
        mined = node.eth.get_transaction_receipt(digits(receipt["transaction"], "transaction", 32, "0x"))
    except Web3Exception as error:
        # Nodes drop old transactions (EIP-4444), but not the headers of their blocks.
        if "block" not in receipt and isinstance(error, TransactionNotFound):
            raise Refused("the chain does not have the transaction") from None
        if "block" not in receipt:
            raise
    else:
        check_mined(receipt, mined)
    if "block" in receipt:
        check_block(receipt)
    block_hash = bytes(node.eth.get_block(receipt["block_number"])["hash"])
    if block_hash != digits(receipt["block_hash"], "block_hash", 32, "0x"):
        raise Refused("the block is no longer part of the chain")


def once(pairs: list) -> dict:
    """The object, if each of its fields is there once."""
    fields: dict = {}
    for field, value in pairs:
        if field in fields:
            raise Refused(f"{shown(field)[1:-1]} is there twice")
        fields[field] = value
    return fields


def integer(text: str) -> object:
    """An integer of a field; as a float, which no field takes, if it is negative or has more digits than 64 bits."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else float(text)


def read(file) -> dict:
    """The receipt in a file, if it has the form of one."""
    text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise Refused(f"not a receipt: more than {MAX_CHARACTERS} characters")
    receipt = json.loads(text, object_pairs_hook=once, parse_int=integer)
    check_form(receipt)
    return receipt


def check(arguments: argparse.Namespace) -> str:
    """What is proven, in words."""
    try:
        receipt = read(arguments.receipt)
        verify(receipt)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Refused(f"not a receipt: {type(error).__name__}: {error}") from error
    if not arguments.contract:
        return "the receipt agrees with itself; whether its root is on the chain was not asked (--rpc, --block-hash)"
    try:
        if arguments.rpc:
            verify_on_chain(receipt, arguments.rpc, arguments.contract)
        else:
            verify_in_block(receipt, arguments.block_hash, arguments.contract)
    except Refused:
        raise
    except ImportError as error:
        raise Refused(f"the chain cannot be verified without web3.py (pip install web3): {error}") from error
    except Exception as error:  # Of the libraries below: what the node does not answer, or answers wrongly.
        raise Refused(f"the node cannot be asked: {type(error).__name__}: {error}") from error
    entry = receipt["entry"]
    return f"{entry['kind']} {entry['subject']}, leaf {receipt['index']}: anchored in block {receipt['block_number']}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Verifies a receipt of posthorn's evidence ledger.")
    parser.add_argument("receipt", type=argparse.FileType(encoding="utf-8"), help="file of posthorn prove; - reads standard input")
    chain = parser.add_mutually_exclusive_group()
    chain.add_argument("--rpc", help="JSON-RPC URL of a node that you trust")
    chain.add_argument("--block-hash", help="hash of the receipt's block, from a source that you trust")
    parser.add_argument("--contract", help="address of the ledger's contract, from a source that you trust")
    arguments = parser.parse_args()
    if bool(arguments.rpc or arguments.block_hash) != bool(arguments.contract):
        parser.error("--contract goes together with --rpc or --block-hash")
    try:
        print(check(arguments))
    except Refused as refused:
        print(f"the receipt does not hold: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
