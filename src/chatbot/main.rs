//! The node `chatbot`.

fn main() -> std::process::ExitCode {
    chatbot::node::main()
}
