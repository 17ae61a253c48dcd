//! The node `fleet_simulator`.

fn main() -> std::process::ExitCode {
    fleet_simulator::node::main()
}
