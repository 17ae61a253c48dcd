#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What users of colcon and CMake see. Needs `make build`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
[ -e build/posthorn/CMakeCache.txt ] || { echo "package.sh: nothing is built: run make build" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0 checks=0

# check NAME COMMAND…: the command must succeed.
check() {
    local name=$1
    shift
    checks=$((checks + 1))
    "$@" >"$scratch/out" 2>&1 || { failures=$((failures + 1)); echo "package.sh: $name: failed:"; sed 's/^/    /' "$scratch/out"; }
}
# says TEXT COMMAND…: the command must fail and print the text.
says() {
    local text=$1 got=0
    shift
    "$@" >"$scratch/said" 2>&1 || got=$?
    # CMake wraps lines.
    [[ $(tr -s ' \n' ' ' <"$scratch/said") == *"$text"* && $got != 0 ]] || { echo "exit code $got, without \"$text\""; cat "$scratch/said"; return 1; }
}

# --- a build that has no problem ---
quiet_build() { scripts/env colcon build --cmake-args -DCMAKE_BUILD_TYPE=Release 2>"$scratch/stderr" >/dev/null && ! grep . "$scratch/stderr"; }
check 'colcon build writes nothing to standard error' quiet_build
stripped() {
    local node nodes=(install/posthorn/lib/posthorn/*)
    [ -x "${nodes[0]}" ] || { echo "no nodes are installed"; return 1; }
    for node in "${nodes[@]}"; do
        ! readelf --sections --wide "$node" | grep -F .debug_info || { echo "$node"; return 1; }
    done
}
check 'installed nodes have no debug information' stripped
registered() { scripts/env ctest --test-dir build/posthorn --show-only | grep -F cargo_test; }
check 'colcon test runs the suite' registered

# --- cargo is missing or too old: a stand-in comes first in PATH ---
mkdir "$scratch/bin"
configure() { env HOME="$scratch" CARGO_HOME= POSTHORN_CACHE="${POSTHORN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/posthorn}" "$@" scripts/env cmake -S . -B "$scratch/build"; }
without_cargo=$(tr : '\n' <<<"$PATH" | while IFS= read -r folder; do [ -e "$folder/cargo" ] || echo "$folder"; done | paste -sd:)
check 'CMake says that there is no cargo' says 'cargo 1.95 or newer: there is none.' configure PATH="$without_cargo"
printf '#!/bin/sh\necho "cargo 1.75.0"\n' >"$scratch/bin/cargo" && chmod +x "$scratch/bin/cargo"
check 'CMake says that cargo is too old' says "$scratch/bin/cargo is 1.75.0. What rosdep and apt install is older" configure PATH="$scratch/bin:$PATH"
check 'and how to do without' says '-DPOSTHORN_NODES=OFF' configure PATH="$scratch/bin:$PATH"
mkdir "$scratch/nothing"
check 'CMake says that there is no libclang' says 'cannot be used: no libclang.so. Install it: apt-get install libclang-dev' \
    configure PATH="$PATH" LIBCLANG_PATH="$scratch/nothing" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"

# --- the build uses every core: make's jobserver reaches cargo, which without it compiles one crate at a time ---
# A pipe of which make says the two ends, or since make 4.4 the name of a fifo, which nothing can cover.
printf 'all:\n\t+@"%s/scripts/quietly" "%s/log" sh -c '"'"'case $$MAKEFLAGS in *fifo:*) exit 0;; esac; ends=$${MAKEFLAGS##*jobserver-auth=}; ends=$${ends%%%% *}; [ -n "$$ends" ] && [ "$$(readlink /proc/self/fd/$${ends%%,*})" = "$$(readlink /proc/self/fd/$${ends#*,})" ]'"'"'\n' "$root" "$scratch" >"$scratch/jobserver.mk"
jobserver() { env -u MAKEFLAGS -u MFLAGS make -j2 -f "$scratch/jobserver.mk" >/dev/null; }
check 'the jobserver of make reaches cargo' jobserver

# --- the report of `colcon test` ---
suite() { printf '#!/bin/sh\n%s\n' "$1" >"$scratch/bin/cargo"; mkdir -p "$2"/{contracts/node_modules,target/venv/{web3,mailauth,slither}/.installed}; (cd "$2" && "$scratch/cargo_test" "$scratch/bin/cargo" "$scratch/result.xml"); }
printf '#!/bin/sh\nexec python3 "%s/scripts/cargo_test.py" "$@"\n' "$root" >"$scratch/cargo_test" && chmod +x "$scratch/cargo_test"
attributes() { head -c 400 "$scratch/result.xml"; grep -qF "$1" "$scratch/result.xml"; }
passes() { suite 'echo "test a::b ... ok"; echo "test c ... ignored"' "$scratch/project" && attributes 'tests="2" failures="0" errors="0" skipped="1"'; }
check 'tests that pass are listed' passes
fails() { ! suite 'echo "test a::b ... FAILED"; exit 101' "$scratch/project" && attributes 'tests="1" failures="1" errors="0"'; }
check 'a test that fails is a failure' fails
breaks() { ! suite 'echo "error: could not compile"; exit 101' "$scratch/project" && attributes 'tests="1" failures="0" errors="1"'; }
check 'a suite that does not compile is an error' breaks
empty() { ! suite 'exit 0' "$scratch/project" && attributes 'tests="1" failures="0" errors="1"'; }
check 'a suite without tests is an error' empty
uninstalled() { (cd "$scratch" && says 'contracts/node_modules is missing: run `npm ci --prefix contracts`' "$scratch/cargo_test" false "$scratch/result.xml"); }
check 'without node_modules it says what to run' uninstalled

echo "package.sh: $checks checks, $failures failed"
[ "$failures" = 0 ]
