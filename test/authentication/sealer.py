# SPDX-License-Identifier: Apache-2.0
"""Seals mails by ARC with dkimpy, as mailing lists and forwarders do, and says what dkimpy finds of them.

Reads a job a line as JSON: a mail, its DNS, and hops, each of which changes the mail and seals it; prints a line for each: the
mail and dkimpy's result."""

import base64
import json
import sys

import dkim

COVERED = ["from", "to", "subject", "date", "message-id"]


def sealed(mail: bytes, hop: dict) -> bytes:
    """The mail after a hop."""
    for old, new in hop["changes"]:
        assert old.encode() in mail, old
        mail = mail.replace(old.encode(), new.encode(), 1)
    if not hop["results"]:
        return mail
    domain = hop["domain"].encode()
    mail = b"Authentication-Results: " + domain + b"; " + hop["results"].encode() + b"\r\n" + mail
    # What a sealer does not cover can be changed afterwards.
    fields = [field.encode() for field in COVERED if field != hop["omits"]]
    arc = dkim.ARC(mail, linesep=b"\r\n")
    return b"".join(arc.sign(b"s1", domain, hop["key"].encode(), domain, include_headers=fields)) + mail


def asked(zone: dict):
    """dkimpy's way to ask for a TXT record."""
    return lambda name, timeout=5: zone.get(name.decode().rstrip("."), "").encode() or None


for line in sys.stdin:
    job = json.loads(line)
    mail = base64.b64decode(job["mail"])
    for hop in job["hops"]:
        mail = sealed(mail, hop)
    found, _, _ = dkim.arc_verify(mail, dnsfunc=asked(job["zone"]))
    print(json.dumps({"mail": mail.hex(), "found": (found or b"none").decode()}))
