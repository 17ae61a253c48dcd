// SPDX-License-Identifier: Apache-2.0
//! The node `chatbot`.

fn main() -> std::process::ExitCode {
    chatbot::node::main()
}
