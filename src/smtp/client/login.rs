// SPDX-License-Identifier: Apache-2.0
//! AUTH (RFC 4954), by PLAIN (RFC 4616) or, where the server does not offer that, LOGIN. Whether the connection may carry
//! a password is left to the caller.

use base64::{Engine, engine::general_purpose::STANDARD};
use smtp_proto::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, ClientError, text};

/// What the server offers of the mechanisms that we know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mechanisms {
    plain: bool,
    login: bool,
}

impl Mechanisms {
    /// Reads the lines of a reply to EHLO, in capitals. Servers that know old clients say `AUTH=` as well.
    pub(super) fn offered(extensions: &[String]) -> Self {
        let lines = extensions.iter().filter_map(|line| line.strip_prefix("AUTH"));
        let names: Vec<_> = lines
            .filter(|rest| rest.starts_with([' ', '=']))
            .flat_map(|rest| rest.split([' ', '=']))
            .collect();
        Self { plain: names.contains(&"PLAIN"), login: names.contains(&"LOGIN") }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Logs in. The error never holds the password, not even if the server repeats it.
    ///
    /// # Errors
    /// If the server offers no way, or refuses.
    pub async fn log_in(&mut self, user: &str, password: &str) -> Result<(), ClientError> {
        let plain = STANDARD.encode(format!("\0{user}\0{password}"));
        let (name, word) = (STANDARD.encode(user), STANDARD.encode(password));
        let lines = if self.mechanisms.plain {
            vec![format!("AUTH PLAIN {plain}\r\n")]
        } else if self.mechanisms.login {
            vec!["AUTH LOGIN\r\n".to_owned(), format!("{name}\r\n"), format!("{word}\r\n")]
        } else {
            return Err(ClientError::NoLogin);
        };
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.iter().enumerate() {
            self.write(line.as_bytes()).await?;
            let reply = self.reply().await?;
            if reply.code != if index == last { 235 } else { 334 } {
                let reply_text = without(&reply, &[&plain, &word, password]);
                return Err(ClientError::Login { reply: reply_text, for_good: reply.code >= 500 });
            }
        }
        Ok(())
    }
}

/// The reply on one line; only its code if it holds a secret.
fn without(reply: &Response<String>, secrets: &[&str]) -> String {
    if secrets.iter().any(|secret| reply.message.contains(secret)) {
        format!("{} (its text repeats the password)", reply.code)
    } else {
        text(reply)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Logs in as `ada` with `open sesame`, to a server that says `offer` to EHLO and then `replies`. Returns the outcome
    /// and what the server was told after EHLO.
    async fn log_in(offer: &str, replies: &str) -> (Result<(), ClientError>, String) {
        let (near, mut far) = tokio::io::duplex(1 << 21);
        far.write_all(format!("220 a\r\n250-a\r\n250 {offer}\r\n{replies}").as_bytes()).await.unwrap();
        let mut client = Client::greet(near, "here", Duration::from_secs(5)).await.unwrap();
        let outcome = client.log_in("ada", "open sesame").await;
        drop(client);
        let mut told = String::new();
        far.read_to_string(&mut told).await.unwrap();
        (outcome, told.strip_prefix("EHLO here\r\n").unwrap().to_owned())
    }

    const PLAIN: &str = "AUTH PLAIN AGFkYQBvcGVuIHNlc2FtZQ==\r\n";

    #[tokio::test]
    async fn takes_plain_or_else_login() {
        for (offer, replies, said) in [
            ("AUTH LOGIN PLAIN CRAM-MD5", "235 in\r\n", PLAIN),
            ("AUTH=PLAIN", "235 in\r\n", PLAIN),
            (
                "auth login",
                "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 in\r\n",
                "AUTH LOGIN\r\nYWRh\r\nb3BlbiBzZXNhbWU=\r\n",
            ),
        ] {
            let (outcome, told) = log_in(offer, replies).await;
            assert!(outcome.is_ok(), "{outcome:?}");
            assert_eq!(told, said);
        }
    }

    #[tokio::test]
    async fn says_nothing_to_a_server_that_offers_no_way() {
        for offer in ["8BITMIME", "AUTH", "AUTH CRAM-MD5 XOAUTH2", "AUTHPLAIN PLAIN", "AUTH PLAINER"] {
            let (outcome, told) = log_in(offer, "235 in\r\n").await;
            assert!(matches!(outcome, Err(ClientError::NoLogin)), "{offer}");
            assert_eq!(told, "", "{offer}");
        }
    }

    #[tokio::test]
    async fn tells_a_refusal_for_good_from_one_for_now_and_never_the_password() {
        for (replies, reply, is_final) in [
            ("535 5.7.8 wrong\r\n", "535 5.7.8 wrong", true),
            ("454 4.7.0 later\r\n", "454 4.7.0 later", false),
            ("421 closing\r\n", "421 closing", false),
            ("334 more\r\n", "334 more", false),
            ("535 ada has not open sesame\r\n", "535 (its text repeats the password)", true),
            ("535 AGFkYQBvcGVuIHNlc2FtZQ==\r\n", "535 (its text repeats the password)", true),
        ] {
            let Err(ClientError::Login { reply: told, for_good }) = log_in("AUTH PLAIN", replies).await.0
            else {
                panic!("{replies}")
            };
            assert_eq!((told.as_str(), for_good), (reply, is_final));
        }
    }

    #[tokio::test]
    async fn an_endless_challenge_ends_the_session() {
        let challenge = format!("334 {}\r\n", "A".repeat(1 << 20));
        let (outcome, told) = log_in("AUTH LOGIN", &challenge).await;
        assert!(matches!(outcome, Err(ClientError::Reply)), "{outcome:?}");
        assert_eq!(told, "AUTH LOGIN\r\n");
        let many = "334-A\r\n".repeat(1 << 17);
        assert!(matches!(log_in("AUTH LOGIN", &many).await.0, Err(ClientError::Reply)));
    }
}
