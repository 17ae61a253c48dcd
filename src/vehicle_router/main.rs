// SPDX-License-Identifier: Apache-2.0
//! The node `vehicle_router`.

fn main() -> std::process::ExitCode {
    vehicle_router::node::main()
}
