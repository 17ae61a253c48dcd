//! The node `authenticator`.

fn main() -> std::process::ExitCode {
    authenticator::node::main()
}
