// SPDX-License-Identifier: Apache-2.0
//! The node `authenticator`.

fn main() -> std::process::ExitCode {
    authenticator::node::main()
}
