// SPDX-License-Identifier: Apache-2.0
//! Reads an account's password or token, at each login: a token lives for an hour, and a password may have been changed.

use std::{io, process::Stdio, time::Duration};

use imap::Credentials;
use record_log::secret::{SecretError, read_text};
use tokio::{process::Command, time::timeout};

use super::accounts::Secret;

/// How long a program may take to print a token.
const PROGRAM: Duration = Duration::from_secs(30);

/// There is nothing to log in with.
#[derive(Debug, thiserror::Error)]
pub enum NoCredentials {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The file is empty.
    #[error("{path}: its first line is empty", path = .0.display())]
    Empty(std::path::PathBuf),
    /// The program failed. What it printed is not repeated.
    #[error("token_command {program:?}: {why}")]
    Program {
        /// The program.
        program: String,
        /// What went wrong.
        why: String,
    },
}

/// Reads what `secret` names.
///
/// # Errors
/// If there is none.
pub async fn credentials(secret: &Secret) -> Result<Credentials, NoCredentials> {
    let first = |text: String| text.lines().next().map(str::to_owned).filter(|line| !line.is_empty());
    match secret {
        Secret::Password(path) => {
            let line = first(read_text(path)?).ok_or_else(|| NoCredentials::Empty(path.clone()))?;
            Ok(Credentials::Password(line))
        }
        Secret::TokenFile(path) => {
            let line = first(read_text(path)?).ok_or_else(|| NoCredentials::Empty(path.clone()))?;
            Ok(Credentials::Token(line))
        }
        Secret::TokenCommand(command) => {
            let (program, arguments) =
                command.split_first().map_or(("", &[][..]), |(one, rest)| (one.as_str(), rest));
            let failed = |why: String| NoCredentials::Program { program: program.to_owned(), why };
            let mut child = Command::new(program);
            child.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let output = timeout(PROGRAM, child.output())
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let output = output.map_err(|error| failed(error.to_string()))?;
            if !output.status.success() {
                return Err(failed(output.status.to_string()));
            }
            let text =
                String::from_utf8(output.stdout).map_err(|_| failed("it prints no text".to_owned()))?;
            first(text).map(Credentials::Token).ok_or_else(|| failed("it prints nothing".to_owned()))
        }
    }
}
