# SPDX-License-Identifier: Apache-2.0
"""Repairs a ROS 2 prefix of PyPI wheels so that C, C++ and Rust programs can be built and run with it.

Every repair is idempotent: bootstrap runs this again after an interruption.
"""

import pathlib
import re
import subprocess
import sys
import sysconfig


def fix_include_directories(share: pathlib.Path, include: str, numpy_include: str) -> None:
    """CMake files name the Python and numpy headers of the machine the wheels were built on."""
    python = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
    numpy = re.compile(r"/[^;\"\s]*/site-packages/numpy/_?core/include")
    for file in share.glob("*/cmake/*.cmake"):
        text = file.read_text()
        fixed = numpy.sub(numpy_include, python.sub(include, text))
        if fixed != text:
            file.write_text(fixed)


def drop_python_dependencies(lib: pathlib.Path, patchelf: str) -> None:
    """Libraries list the Python bindings as NEEDED, which stops every process that is not Python."""
    bindings = sorted(file.name for file in lib.glob("lib*_generator_py.so"))
    remove = [argument for name in bindings for argument in ("--remove-needed", name)]
    others = [str(file) for file in sorted(lib.glob("*.so")) if file.name not in bindings and not file.is_symlink()]
    if not bindings or not others:
        sys.exit(f"repair: no libraries in {lib}: the wheels are not what the lock file says")
    subprocess.run([patchelf, *remove, *others], check=True)


def link_rmw_implementation(lib: pathlib.Path) -> None:
    """The wheels link the only RMW directly; client libraries ask for librmw_implementation."""
    link = lib / "librmw_implementation.so"
    if not link.exists():
        link.symlink_to("librmw_fastrtps_cpp.so")


def make_local_setup(prefix: pathlib.Path) -> None:
    """colcon warns of a prefix without these, and what it generates sources them."""
    for shell in ("bash", "sh", "zsh"):
        (prefix / f"local_setup.{shell}").write_text("# Empty: scripts/env sets this prefix's environment.\n")


def main() -> None:
    prefix = pathlib.Path(sys.argv[1])
    import numpy

    fix_include_directories(prefix / "share", sysconfig.get_paths()["include"], numpy.get_include())
    drop_python_dependencies(prefix / "lib", str(prefix / "bin" / "patchelf"))
    link_rmw_implementation(prefix / "lib")
    make_local_setup(prefix)


if __name__ == "__main__":
    main()
