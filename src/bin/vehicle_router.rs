//! The node `vehicle_router`.

fn main() -> std::process::ExitCode {
    posthorn::vehicle_router::node::main()
}
