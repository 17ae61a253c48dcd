#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What scripts/bootstrap says on a machine where one thing is missing, too old or broken. Stand-in programs come first
# in PATH, and nothing is installed. `make fresh` tries the same on whole machines.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0 cases=0

export POSTHORN_CACHE=$scratch/cache
unset ROS_DISTRO AMENT_PREFIX_PATH LIBCLANG_PATH
# Pretend that the prefix exists, so that none is made.
prefix=$(bash -c '. "$1/scripts/prefix"; echo "$prefix"' - "$root")
mkdir -p "$prefix" && touch "$prefix/.complete"

# stand_in NAME 'shell code': puts a program of this name first in PATH.
stand_in() { printf '#!/bin/sh\n%s\n' "$2" >"$bin/$1"; chmod +x "$bin/$1"; }
user() { stand_in id 'echo 1000'; }
# root on a machine where apt-get runs but what it installs does not help.
admin() { stand_in id 'echo 0'; stand_in apt-get 'echo "apt-get $*" >>"$0.log"'; }

# expect STATUS 'a part of what it prints' [VARIABLE=value…]
expect() {
    local status=$1 text=$2 got=0
    shift 2
    cases=$((cases + 1))
    env "$@" PATH="$bin:$PATH" "$root/scripts/bootstrap" >"$scratch/out" 2>&1 || got=$?
    if [ "$got" != "$status" ] || ! grep -qF -- "$text" "$scratch/out"; then
        failures=$((failures + 1))
        echo "bootstrap.sh: $name: expected exit code $status and \"$text\"; got $got and:"
        sed 's/^/    /' "$scratch/out"
    fi
}
case_of() { name=$1 bin=$scratch/bin-$cases; mkdir -p "$bin"; }
apt='as root, run: apt-get update && apt-get install -y --no-install-recommends'

case_of 'everything is there'
user
expect 0 'ROS 2 Jazzy is there'

case_of 'libclang-cpp.so.14 without libclang.so: the fault of issue 5'
user
mkdir "$scratch/llvm"
printf '\177ELF\2' | tee "$scratch/llvm/libclang-cpp.so.14" >"$scratch/llvm/libclang-cpp.so.14.0.6"
expect 1 "missing or not usable: libclang-dev (no libclang.so); $apt libclang-dev" LIBCLANG_PATH="$scratch/llvm"
admin
expect 1 'installed, and still not usable: libclang-dev (no libclang.so)' LIBCLANG_PATH="$scratch/llvm"
cases=$((cases + 1))
grep -qF 'apt-get install -y --no-install-recommends libclang-dev' "$bin/apt-get.log" || { failures=$((failures + 1)); echo "bootstrap.sh: $name: apt-get did not run"; }

case_of 'a libclang that does not load'
admin
printf '\177ELF\2' >"$scratch/llvm/libclang-14.so.1"
expect 1 "still not usable: libclang-dev ($scratch/llvm/libclang-14.so.1: " LIBCLANG_PATH="$scratch/llvm"

case_of 'no npm'
user
stand_in npm 'exit 127'
expect 1 "$apt npm"

case_of 'npm without its modules, and an old node'
admin
stand_in npm 'echo "Error: Cannot find module" >&2; exit 1'
stand_in node 'echo v10.24.0'
expect 1 'still not usable: nodejs (it is 10.24.0: 12.20 or newer is needed), npm (it does not run)'

case_of 'a compiler that links nothing'
user
stand_in g++ 'exec /usr/bin/g++ -fsyntax-only "$@"'
expect 1 "$apt g++"

case_of 'Python without its headers and without ensurepip'
user
stand_in python3 'case $* in *get_paths*) echo /nowhere;; *venv*) exit 1;; *) exec '"$(command -v python3)"' "$@";; esac'
expect 1 "$apt python3-dev python3-venv" POSTHORN_CACHE="$scratch/empty"

case_of 'a Python for which there are no wheels'
admin
stand_in python3 'case $* in *version_info*) exit 1;; -V) echo Python 3.9.2;; *) exec '"$(command -v python3)"' "$@";; esac'
expect 1 'python3 is 3.9.2: the pinned wheels are for Python 3.10 to 3.14'

case_of 'the cargo of Debian 13'
admin
stand_in cargo 'echo "cargo 1.85.0 (d73d2caf9 2024-12-31)"'
expect 1 'cargo: it is 1.85.0: 1.95 or newer is needed. Install Rust 1.95 or newer from https://rustup.rs'

case_of 'rustup without a toolchain'
admin
stand_in cargo 'echo "error: rustup could not choose a version of cargo to run" >&2; exit 1'
expect 1 'cargo: it does not run. Install Rust'

case_of 'another ROS 2 is sourced'
user
expect 1 'ROS 2 humble is sourced: posthorn is built with jazzy' ROS_DISTRO=humble AMENT_PREFIX_PATH=/opt/ros/humble

case_of 'ROS 2 is sourced, and something is missing: nothing is installed'
admin
stand_in npm 'exit 127'
expect 1 "$apt npm" ROS_DISTRO=jazzy AMENT_PREFIX_PATH=/opt/ros/jazzy
cases=$((cases + 1))
[ ! -e "$bin/apt-get.log" ] || { failures=$((failures + 1)); echo "bootstrap.sh: $name: apt-get ran"; }

echo "bootstrap.sh: $cases checks, $failures failed"
[ "$failures" = 0 ]
