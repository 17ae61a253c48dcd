//! The node `mail_bridge`.

fn main() -> std::process::ExitCode {
    posthorn::mail_bridge::node::main()
}
