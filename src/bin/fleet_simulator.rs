//! The node `fleet_simulator`.

fn main() -> std::process::ExitCode {
    posthorn::fleet_simulator::node::main()
}
