// SPDX-License-Identifier: Apache-2.0
//! The node `fleet_simulator`.

fn main() -> std::process::ExitCode {
    fleet_simulator::node::main()
}
