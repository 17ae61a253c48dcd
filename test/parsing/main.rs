// SPDX-License-Identifier: Apache-2.0
//! Parses every `test/data/mail/*.eml` and compares the result with the golden `.expected` beside it; also parses
//! random and hostile bytes.
//!
//! To add a case, add an `.eml`, write its `.expected` with `POSTHORN_REGENERATE=1`, and review it.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::{
    fmt::Write,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant, UNIX_EPOCH},
};

use mail::{Content, Envelope, Mailbox, Origin, is_automatic, parse};
use proptest::prelude::*;

#[test]
fn reads_every_mail_of_the_corpus_as_expected() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/data/mail");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    assert!(files.len() >= 12, "the corpus has {} mails", files.len());
    for file in files {
        let content = parse(&fs::read(&file).unwrap());
        assert_bounds(&content);
        let shown = show(&content);
        let golden = file.with_extension("expected");
        if std::env::var_os("POSTHORN_REGENERATE").is_some() {
            fs::write(&golden, &shown).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(shown, expected, "{}", file.display());
    }
}

mod text_only;

#[test]
fn deep_nesting_is_bounded() {
    for kind in ["multipart/mixed; boundary=b", "message/rfc822", "multipart/digest; boundary=b"] {
        let mail = format!("Content-Type: {kind}\r\n\r\n--b\r\n").repeat(100_000);
        let content = quickly(mail.as_bytes());
        assert!(content.attachments.len() <= 1000, "{kind}");
    }
    let distinct: String = (0..50_000)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
        .collect();
    let content = quickly(distinct.as_bytes());
    assert!(content.truncated);
    assert_eq!(content.attachments.len(), 1);
}

#[test]
fn a_header_bomb_is_bounded() {
    let content = quickly("a:\n".repeat(1_000_000).as_bytes());
    assert_eq!(content.headers.len(), 1000);
    assert!(content.truncated);
    for unit in ["a@example.org, ", "=?utf-8?q?", "<", "(", "\"", "; a*0*=b", "=?a", ":;"] {
        for name in
            ["Subject", "To", "From", "Message-ID", "Date", "Content-Type", "Content-Type: multipart/mixed"]
        {
            quickly(format!("{name}: {}\r\n\r\n", unit.repeat((1 << 21) / unit.len())).as_bytes());
        }
    }
}

#[test]
fn a_bomb_of_parts_is_bounded() {
    let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let content = quickly(format!("{head}{}", "--b\r\n\r\nx\r\n".repeat(200_000)).as_bytes());
    assert!(content.truncated);
    assert!(content.attachments.len() < 1000);
    for unit in [
        "<div>",
        "<blockquote>x",
        "<table><tr><td>x",
        "<b>",
        "<s>x</s>",
        "</p>",
        "<!--[if ",
        "<a b",
        "&",
        "w",
    ] {
        let html = unit.repeat((1 << 20) / unit.len());
        quickly(format!("Content-Type: text/html\r\n\r\n{html}").as_bytes());
    }
    // Nested parts that each search for a delimiter that never comes.
    let inner = "--b\r\nContent-Type: multipart/mixed; boundary=never\r\n\r\n";
    quickly(format!("{head}{}", inner.repeat(50_000)).as_bytes());
}

proptest! {
    #[test]
    fn any_bytes_give_a_content_within_its_bounds(data in proptest::collection::vec(any::<u8>(), 0..2048)) {
        assert_bounds(&parse(&data));
    }

    #[test]
    fn any_mail_gives_a_content_within_its_bounds(fragments in proptest::collection::vec(fragment(), 0..60)) {
        assert_bounds(&parse(fragments.concat().as_bytes()));
    }

    #[test]
    fn reads_back_a_mailbox(local in "[a-z0-9]{1,20}", domain in "[a-zA-Z0-9]{1,20}\\.example", name in "[a-zA-Z]{0,20}") {
        let content = parse(format!("From: {name} <{local}@{domain}>\r\n\r\n").as_bytes());
        let address = format!("{local}@{}", domain.to_lowercase());
        prop_assert_eq!(content.from, vec![Mailbox { name, address }]);
    }
}

/// Building blocks of mails, so that random mails reach the interesting paths.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "\r\n",
            "\r\n\r\n",
            "\n",
            " ",
            "\t",
            "\0",
            "From: ",
            "To: ",
            "Subject: ",
            "Date: ",
            "Message-ID: <",
            ">",
            "a@b.c",
            "Content-Type: multipart/mixed; boundary=b",
            "Content-Type: text/html",
            "Content-Disposition: attachment; filename*0*=x''%zz",
            "Content-Transfer-Encoding: base64",
            "Content-Transfer-Encoding: quoted-printable",
            "--b\r\n",
            "--b--\r\n",
            "=?utf-8?b?w6k=?=",
            "=?utf-8?q?=",
            "=C3=A9",
            "<b>&eacute;</b><script>",
            "<!--",
            "&#x110000;",
            "(",
            "\"",
            "\\",
            ";",
            ":",
            ",",
            "é",
            "charset=utf-7",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,20}",
        any::<String>(),
    ]
}

fn quickly(mail: &[u8]) -> Content {
    let start = Instant::now();
    let content = parse(mail);
    // Our debug build takes under a second on a busy machine; a quadratic parser takes minutes.
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert_bounds(&content);
    content
}

/// Checks the bounds of `msg/Mail.msg` and of the messages nested in it.
fn assert_bounds(content: &Content) {
    let string = |text: &str, max: usize| {
        assert!(text.len() <= max && !text.contains('\0'), "{} of {max}: {text:?}", text.len())
    };
    for text in [&content.message_id, &content.in_reply_to, &content.subject] {
        string(text, 998);
    }
    for (list, max) in
        [(&content.from, 100), (&content.reply_to, 100), (&content.to, 1000), (&content.cc, 1000)]
    {
        assert!(list.len() <= max);
        for address in list {
            string(&address.name, 998);
            string(&address.address, 320);
        }
    }
    assert!(content.headers.len() <= 1000);
    for header in &content.headers {
        string(&header.name, 998);
        string(&header.value, 8192);
    }
    string(&content.text, 262_144);
    assert!(content.attachments.len() <= 1000);
    for attachment in &content.attachments {
        string(&attachment.filename, 998);
        string(&attachment.media_type, 255);
    }
}

fn show(content: &Content) -> String {
    let addresses = |list: &[Mailbox]| {
        list.iter().map(|one| format!("{:?} <{}>", one.name, one.address)).collect::<Vec<_>>().join(", ")
    };
    let date = content.date.map(|date| date.duration_since(UNIX_EPOCH).unwrap().as_secs());
    let envelope = Envelope {
        peer: Ipv4Addr::LOCALHOST.into(),
        helo: "client.example".into(),
        mail_from: "sender@example.org".into(),
        rcpt_to: vec!["fleet@example.net".into()],
    };
    let mut out = String::new();
    writeln!(out, "message_id: {:?}", content.message_id).unwrap();
    writeln!(out, "in_reply_to: {:?}", content.in_reply_to).unwrap();
    writeln!(out, "subject: {:?}", content.subject).unwrap();
    writeln!(out, "from: {}", addresses(&content.from)).unwrap();
    writeln!(out, "reply_to: {}", addresses(&content.reply_to)).unwrap();
    writeln!(out, "to: {}", addresses(&content.to)).unwrap();
    writeln!(out, "cc: {}", addresses(&content.cc)).unwrap();
    writeln!(out, "date: {date:?}").unwrap();
    for header in &content.headers {
        writeln!(out, "header: {:?} = {:?}", header.name, header.value).unwrap();
    }
    writeln!(out, "text: {:?}", content.text).unwrap();
    writeln!(out, "truncated: {}", content.truncated).unwrap();
    writeln!(out, "text_only: {}", content.text_only).unwrap();
    for one in &content.attachments {
        let digest = one.digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        writeln!(
            out,
            "attachment: {:?} {} {} bytes, sha256 {digest}…",
            one.filename, one.media_type, one.size
        )
        .unwrap();
    }
    writeln!(out, "automatic: {:?}", is_automatic(content, &Origin::Smtp(envelope))).unwrap();
    out
}
