// SPDX-License-Identifier: Apache-2.0
//! The node `mail_bridge`.

fn main() -> std::process::ExitCode {
    mail_bridge::node::main()
}
