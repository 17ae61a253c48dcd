// SPDX-License-Identifier: Apache-2.0
//! The command `posthorn`.

fn main() {
    posthorn::run::main();
}
