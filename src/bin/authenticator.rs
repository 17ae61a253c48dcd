//! The node `authenticator`.

fn main() -> std::process::ExitCode {
    posthorn::authenticator::node::main()
}
