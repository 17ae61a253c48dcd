# SPDX-License-Identifier: Apache-2.0
"""Fails, with the reason on standard output, unless bindgen will find a libclang that can read a C header.

bindgen loads the library that clang-sys finds; this looks for the same files in the same places (clang-sys 1.9,
build/common.rs and build/dynamic.rs), loads the one that it would take, and parses a header with it. That also shows
whether clang's own headers (stddef.h) are there, which Debian keeps in a package of their own.
"""

import ctypes
import glob
import os
import pathlib
import subprocess
import sys

NAMES = ("libclang.so", "libclang-*.so", "libclang.so.*", "libclang-*.so.*")
DIRECTORIES = (
    "/usr/local/llvm*/lib*", "/usr/local/lib*/*/*", "/usr/local/lib*/*", "/usr/local/lib*",
    "/usr/lib*/*/*", "/usr/lib*/*", "/usr/lib*",
)  # fmt: skip
# Only clang's own headers: the C library's headers come with the compiler.
HEADER = b"#include <stdarg.h>\n#include <stddef.h>\nsize_t posthorn(int, ...);\n"
# CXDiagnostic_Error in clang-c/Index.h.
ERROR = 3


class UnsavedFile(ctypes.Structure):
    """CXUnsavedFile of clang-c/Index.h: a file that is in memory only."""

    _fields_ = [("name", ctypes.c_char_p), ("contents", ctypes.c_char_p), ("length", ctypes.c_ulong)]


class String(ctypes.Structure):
    """CXString of clang-c/CXString.h."""

    _fields_ = [("data", ctypes.c_void_p), ("flags", ctypes.c_uint)]


def directories() -> list[str]:
    """Where clang-sys looks, in its order."""
    explicit = os.environ.get("LIBCLANG_PATH")
    if explicit is not None:
        return [explicit]
    found = []
    try:
        command = [os.environ.get("LLVM_CONFIG_PATH", "llvm-config"), "--prefix"]
        prefix = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
        found += [f"{prefix}/{part}" for part in ("bin", "lib", "lib64")]
    except (OSError, subprocess.CalledProcessError):
        pass
    for variable in ("LD_LIBRARY_PATH", "LIBRARY_PATH"):
        found += [part for part in os.environ.get(variable, "").split(":") if part]
    for pattern in DIRECTORIES:
        found += sorted(glob.glob(pattern))
    return found


def libraries(directory: str) -> list[str]:
    """The files of libclang in a directory; LIBCLANG_PATH may also name the file itself."""
    found = [path for name in NAMES for path in sorted(glob.glob(f"{glob.escape(directory)}/{name}"))]
    parent, name = os.path.split(directory)
    if not found and any(pathlib.PurePath(name).match(pattern) for pattern in NAMES) and os.path.isfile(directory):
        found = [directory]
    # libclang-cpp has a different interface.
    return [path for path in found if "-cpp." not in os.path.basename(path) and is_elf64(path)]


def is_elf64(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(5) == b"\x7fELF\x02"
    except OSError:
        return False


def version(path: str) -> list[int]:
    """As clang-sys reads it from the file's name: the newest is taken, of equal ones the first."""
    name = os.path.basename(path)
    if name.startswith("libclang.so."):
        text = name[len("libclang.so.") :]
    elif name.startswith("libclang-"):
        text = name[len("libclang-") : -3]
    else:
        return []
    return [int(part) if part.isdigit() else 0 for part in text.split(".")]


def errors(path: str) -> list[str]:
    """What the library at `path` complains about in a small header."""
    clang = ctypes.CDLL(path)
    clang.clang_createIndex.restype = ctypes.c_void_p
    clang.clang_parseTranslationUnit.restype = ctypes.c_void_p
    clang.clang_getDiagnostic.restype = ctypes.c_void_p
    clang.clang_getDiagnosticSpelling.restype = String
    clang.clang_getCString.restype = ctypes.c_char_p
    index = ctypes.c_void_p(clang.clang_createIndex(0, 0))
    arguments = (ctypes.c_char_p * 2)(b"-x", b"c")
    file = UnsavedFile(b"posthorn.h", HEADER, len(HEADER))
    parsed = clang.clang_parseTranslationUnit(index, file.name, arguments, 2, ctypes.byref(file), 1, 0)
    if not parsed:
        return ["it cannot read a header"]
    unit = ctypes.c_void_p(parsed)
    found = []
    for number in range(clang.clang_getNumDiagnostics(unit)):
        diagnostic = ctypes.c_void_p(clang.clang_getDiagnostic(unit, number))
        if clang.clang_getDiagnosticSeverity(diagnostic) >= ERROR:
            found.append(clang.clang_getCString(clang.clang_getDiagnosticSpelling(diagnostic)).decode())
    return found


def main() -> None:
    found = [path for directory in directories() for path in libraries(directory)]
    if not found:
        sys.exit("no libclang.so")
    best = max(found, key=version)
    try:
        complaints = errors(best)
    except (OSError, AttributeError) as error:
        sys.exit(f"{best}: {error}")
    if complaints:
        sys.exit(f"{best}: {complaints[0]}")


if __name__ == "__main__":
    main()
