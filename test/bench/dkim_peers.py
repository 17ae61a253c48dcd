# SPDX-License-Identifier: Apache-2.0
"""Verifies signed mails with dkimpy and with OpenDKIM's library (Debian: libopendkim11), and prints mails a second of each,
or why there are none."""

import ctypes
import ctypes.util
import json
import sys
import time
from collections.abc import Callable

import dkim

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
mails = [bytes.fromhex(mail) for mail in job["mails"]]
record = job["record"].encode()


def rate(verify: Callable[[bytes], bool]) -> float:
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < job["seconds"]:
        for mail in mails:
            assert verify(mail), "a signature does not verify"
            count += 1
    return count / (time.perf_counter() - began)


def by_dkimpy(mail: bytes) -> bool:
    return dkim.verify(mail, dnsfunc=lambda name, timeout=5: record)


class OpenDkim:
    """The library's calls that a mail filter makes (dkim.h of OpenDKIM 2.11)."""

    FEATURE_ED25519 = 11
    KEY_LOOKUP = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t
    )

    def __init__(self, name: str) -> None:
        library = self.library = ctypes.CDLL(name)
        library.dkim_init.restype = ctypes.c_void_p
        library.dkim_verify.restype = ctypes.c_void_p
        library.dkim_libfeature.restype = ctypes.c_bool
        self.handle = ctypes.c_void_p(library.dkim_init(None, None))
        self.lookup = self.KEY_LOOKUP(self.answer)
        library.dkim_set_key_lookup(self.handle, self.lookup)

    @staticmethod
    def answer(_dkim: int, _signature: int, buffer, size: int) -> int:
        text = record + b"\0"
        assert len(text) <= size
        ctypes.memmove(buffer, text, len(text))
        return 0

    def knows_ed25519(self) -> bool:
        return self.library.dkim_libfeature(self.handle, self.FEATURE_ED25519)

    def verify(self, mail: bytes) -> bool:
        library, status = self.library, ctypes.c_int()
        one = ctypes.c_void_p(library.dkim_verify(self.handle, b"id", None, ctypes.byref(status)))
        for part in (lambda: library.dkim_chunk(one, mail, ctypes.c_size_t(len(mail))),
                     lambda: library.dkim_chunk(one, None, ctypes.c_size_t(0))):
            if part() != 0:
                return False
        verified = library.dkim_eom(one, None) == 0
        library.dkim_free(one)
        return verified


results: dict = {"dkimpy": rate(by_dkimpy)}
name = ctypes.util.find_library("opendkim") or "libopendkim.so.11"
try:
    opendkim = OpenDkim(name)
except OSError:
    results["libopendkim"] = "not installed (Debian: libopendkim11)"
else:
    if "k=ed25519" in job["record"] and not opendkim.knows_ed25519():
        results["libopendkim"] = "does not know Ed25519"
    else:
        results["libopendkim"] = rate(opendkim.verify)
print(json.dumps(results))
