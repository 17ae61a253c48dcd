//! The node `chatbot`.

fn main() -> std::process::ExitCode {
    posthorn::chatbot::node::main()
}
