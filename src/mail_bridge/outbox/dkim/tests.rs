// SPDX-License-Identifier: Apache-2.0
use std::{
    borrow::Borrow,
    fs,
    hash::Hash,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mail::{MailId, OutboundKind, OutboundMail};
use mail_auth::{
    AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt,
    common::{parse::TxtRecordParser, verify::DomainKey},
    hickory_resolver::config::{ResolverConfig, ResolverOpts},
};
use rsa::{
    RsaPrivateKey,
    pkcs1::EncodeRsaPrivateKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};

use smtp::client::Accepts;

use super::{
    super::{ComposeContext, Original, compose},
    *,
};

/// The only record that there is.
struct Record(Arc<DomainKey>);

impl ResolverCache<Box<str>, Txt> for Record {
    fn get<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(Txt::DomainKey(Arc::clone(&self.0)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

fn signer(directory: &Path, pem: &str) -> Result<Signer, KeyError> {
    let key_path = directory.join("dkim.pem");
    fs::write(&key_path, pem).unwrap();
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).unwrap();
    Signer::new(&Dkim { selector: "robot".to_owned(), domain: "fleet.example".to_owned(), key_path })
}

/// What a receiver finds that has this record.
async fn verify(mail: &str, record: &str) -> DkimResult {
    let record = Record(Arc::new(DomainKey::parse(record.as_bytes()).unwrap()));
    let resolver = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
    let message = AuthenticatedMessage::parse(mail.as_bytes()).unwrap();
    let outputs = resolver.verify_dkim(Parameters::new(&message).with_txt_cache(&record)).await;
    assert_eq!(outputs.len(), 1);
    outputs[0].result().clone()
}

const MAIL: &str = "From: <robot@fleet.example>\r\nTo: <ada@x.test>\r\nSubject: Re: where\r\n is it\r\n\
    Date: Sun, 9 Sep 2001 01:46:40 +0000\r\nMessage-ID: <1@fleet.example>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain\r\n\r\nat the depot\r\n.\r\n";

fn ed25519() -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    (key.serialize_pem(), format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(key.public_key_raw())))
}

#[tokio::test]
async fn a_receiver_with_the_published_key_finds_the_mail_as_it_was() {
    let rsa = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let public = STANDARD.encode(rsa.to_public_key().to_public_key_der().unwrap().as_bytes());
    let record = format!("v=DKIM1; k=rsa; p={public}");
    let (pem, ed_record) = ed25519();
    for (pem, record, algorithm) in [
        (rsa.to_pkcs1_pem(LineEnding::LF).unwrap().to_string(), record.clone(), "a=rsa-sha256"),
        (rsa.to_pkcs8_pem(LineEnding::LF).unwrap().to_string(), record, "a=rsa-sha256"),
        (pem, ed_record, "a=ed25519-sha256"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let signer = signer(directory.path(), &pem).unwrap();
        let signed = String::from_utf8(signer.sign(MAIL.into()).unwrap()).unwrap();
        let field = signed.strip_suffix(MAIL).unwrap();
        assert!(field.starts_with("DKIM-Signature: ") && field.len() <= FIELD_BYTES, "{field}");
        for part in [algorithm, "d=fleet.example", "s=robot", "c=relaxed/relaxed"] {
            assert!(field.contains(part), "{field}");
        }
        assert!(!field.replace("\r\n", "").contains(['\r', '\n']), "{field}");
        assert_eq!(verify(&signed, &record).await, DkimResult::Pass);
        // Anything else is found out; what a list or a relay puts in front is not.
        for (from, to, is_same) in [
            ("at the depot", "at the pub", false),
            ("Subject: Re: ", "Subject: Fw: ", false),
            ("From: <robot@", "From: <evil@x.test>\r\nFrom: <robot@", false),
            ("To: <ada", "Reply-To: <evil@x.test>\r\nTo: <ada", false),
            ("DKIM-Signature", "Received: by x.test\r\nDKIM-Signature", true),
            ("where\r\n is it", "where   is it", true),
        ] {
            let found = verify(&signed.replacen(from, to, 1), &record).await;
            assert_eq!(found == DkimResult::Pass, is_same, "{to}");
        }
    }
}

#[tokio::test]
async fn a_forward_is_signed_with_the_mail_that_it_carries() {
    let directory = tempfile::tempdir().unwrap();
    let (pem, record) = ed25519();
    let signer = signer(directory.path(), &pem).unwrap();
    let original = "From: a@x.test\r\nSubject: s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        Grüße \t \r\n.\r\n\r\n  no end of line";
    let mail = OutboundMail {
        answers: Some(MailId::of(original.as_bytes())),
        kind: OutboundKind::Forward,
        message_id: "1@fleet.example".to_owned(),
        from: String::new(),
        to: vec!["ada@x.test".to_owned()],
        reply_to: vec!["b@x.test".to_owned()],
        urgent: true,
        subject: "Fwd: Grüße".to_owned(),
        in_reply_to: "2@x.test".to_owned(),
        text: "see below".to_owned(),
        authentication_results: "dkim=none".to_owned(),
    };
    for eight_bit in [true, false] {
        let context = ComposeContext {
            sender: "robot@fleet.example",
            hostname: "fleet.example",
            now: SystemTime::UNIX_EPOCH,
            accepts: Accepts { eight_bit, size: None },
        };
        let composed = compose(&mail, Some(&Original::Kept(original.into())), &context).unwrap();
        assert!(composed.attached);
        let signed = String::from_utf8(signer.sign(composed.message.data).unwrap()).unwrap();
        assert_eq!(verify(&signed, &record).await, DkimResult::Pass);
    }
}

#[test]
fn refuses_a_key_that_others_can_read_or_that_is_none_and_tells_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let weak = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let pem = weak.to_pkcs8_pem(LineEnding::LF).unwrap();
    for bad in ["", "hunter2", &pem, &elliptic, &pem[..400]] {
        let error = signer(directory.path(), bad).err().unwrap().to_string();
        assert!(error.ends_with("RSA of 2048 to 4096 bits or Ed25519"), "{error}");
        assert!(!error.contains("hunter2"));
    }
    let key_path = directory.path().join("dkim.pem");
    fs::write(&key_path, ed25519().0).unwrap();
    fs::set_permissions(&key_path, fs::Permissions::from_mode(0o640)).unwrap();
    let dkim = Dkim { selector: "s".to_owned(), domain: "d.example".to_owned(), key_path };
    assert!(Signer::new(&dkim).err().unwrap().to_string().contains("has mode 640"));
}
