// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use mail::MailId;
use settings::{Value, resolve};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;
use crate::params::{Params, SPECS};

/// A server that takes 8 bits, and all that it is told. It refuses mails of more than 2500 bytes, and closes behind that.
async fn server() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &tell).await;
        }
    });
    (address, told)
}

async fn serve(stream: TcpStream, tell: &mpsc::UnboundedSender<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 server\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        tell.send(line.clone()).ok()?;
        let reply = match line.get(..4).unwrap_or_default() {
            "EHLO" => "250-server\r\n250-SIZE 99999\r\n250 8BITMIME\r\n",
            "MAIL" if size(&line) > 2500 => {
                stream.write_all(b"552 5.3.4 too large\r\n").await.ok()?;
                return None;
            }
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut mail).await.ok().filter(|read| *read > 0)?;
                }
                tell.send(mail).ok()?;
                "250 ok\r\n"
            }
            _ => "250 ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

/// What `MAIL` says about the size of the mail.
fn size(line: &str) -> usize {
    line.rsplit_once("SIZE=").unwrap().1.trim().parse().unwrap()
}

fn relay(directory: &TempDir, smarthost: &str, signs: bool) -> Arc<Relay> {
    let key = directory.path().join("dkim.pem");
    fs::write(&key, rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let dkim = [
        ("dkim_domain", "fleet.example"),
        ("dkim_selector", "robot"),
        ("dkim_key_path", key.to_str().unwrap()),
    ];
    let values: BTreeMap<_, _> = [("smarthost", smarthost), ("sender_address", "robot@fleet.example")]
        .iter()
        .chain(if signs { &dkim[..] } else { &[] })
        .map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned())))
        .collect();
    let params = Params::load(&resolve(SPECS, values).unwrap(), Path::new("/nowhere")).unwrap();
    Arc::new(Relay::new(Arc::new(params)).unwrap())
}

/// Forwards a mail with this body. Returns what became of it, and all that the server was told.
async fn forward(body: &str, signs: bool) -> (Outcome, Contact, String) {
    let original = format!("Subject: s\r\n\r\n{body}\r\n").into_bytes();
    let mail = OutboundMail {
        answers: Some(MailId::of(&original)),
        kind: OutboundKind::Forward,
        message_id: String::new(),
        from: String::new(),
        to: vec!["ada@x.test".to_owned()],
        reply_to: Vec::new(),
        urgent: false,
        subject: String::new(),
        in_reply_to: String::new(),
        text: String::new(),
        authentication_results: String::new(),
    };
    let directory = tempfile::tempdir().unwrap();
    let (smarthost, mut told) = server().await;
    let relay = relay(&directory, &smarthost, signs);
    let read = Arc::new((mail, Some(Original::Kept(original))));
    let (outcome, contact) = send((&relay, 0), &read, 1, &mut None).await;
    (outcome, contact, std::iter::from_fn(|| told.try_recv().ok()).collect())
}

#[tokio::test]
async fn what_is_signed_goes_in_7_bits() {
    for signs in [false, true] {
        let (outcome, _, told) = forward("Grüße", signs).await;
        assert_eq!(outcome.delivered, 1);
        assert_eq!(told.contains("DKIM-Signature: "), signs, "{told}");
        assert_eq!((told.is_ascii(), !told.contains("BODY=8BITMIME")), (signs, signs), "{told}");
    }
}

#[tokio::test]
async fn a_forward_that_is_refused_goes_without_its_mail_though_the_server_closes() {
    let (outcome, contact, told) = forward(&"x".repeat(900).repeat(4), false).await;
    assert_eq!((outcome.delivered, contact), (1, Contact::Worked), "{told}");
    assert_eq!(told.matches("EHLO").count(), 2, "{told}");
    assert!(told.contains("is not attached"), "{told}");
}
