// SPDX-License-Identifier: Apache-2.0
//! Somebody who copies a signed mail and changes it cannot make it give an order that its sender did not give.

use std::sync::LazyLock;

use authenticator::{
    dns::Dns,
    verdict::{RegistryAnswer, decide},
};
use chatbot::intent::{self, Request};
use mail::{AuthResult::Pass, Role, parse};
use proptest::prelude::*;

use super::scene::{Scene, signed_over};

/// The domain and the mails that it signed, made once for all tests: generating keys and signatures takes most of the
/// time.
struct Mails {
    scene: Scene,
    dns: Dns,
    orders: Vec<Vec<u8>>,
    no_orders: Vec<Vec<u8>>,
}

static MAILS: LazyLock<Mails> = LazyLock::new(|| {
    let scene = Scene::new();
    let (orders, no_orders) = (orders(&scene), no_orders(&scene));
    Mails { dns: scene.dns(), scene, orders, no_orders }
});

/// An order that would be carried out: the request, the sender, the Message-ID and the date.
type Given = (Request, String, String, Option<std::time::SystemTime>);

/// The order that chatbot would carry out if these bytes came from an operator.
fn given(mail: &[u8]) -> Option<Given> {
    let content = parse(mail);
    let request = intent::read(&content).ok().filter(Request::is_order)?;
    let checked = MAILS.scene.check_with(&MAILS.dns, mail);
    let from = checked.from.clone()?.to_string();
    let verdict = decide(checked, Some(RegistryAnswer::active(Role::Operator)));
    let may = verdict.authenticated && verdict.dmarc == Pass && intent::may_order(&content, &verdict).is_ok();
    may.then_some((request, from, content.message_id, content.date))
}

const HEAD: &str = "From: Alice <alice@example.org>\r\nTo: fleet@example.net\r\nSubject: SUBJECT\r\n\
    Date: Mon, 6 Jan 2025 08:00:00 +0100\r\nMessage-ID: <1@example.org>\r\n";
/// Fields covered by a signer that knows nothing of MIME (`FEW`) and by one that does (`MANY`).
const FEW: [&str; 5] = ["From", "To", "Subject", "Date", "Message-ID"];
const MANY: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
];
const ALTERNATIVE: &str = "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\
    Content-Type: text/plain; charset=utf-8\n\nstop truck_1\n--b\nContent-Type: text/html\n\n<p>stop truck_1</p>\n--b--\n";

fn signed(scene: &Scene, fields: &[&str], subject: &str, rest: &str) -> Vec<u8> {
    let mail = HEAD.replace("SUBJECT", subject) + &rest.replace('\n', "\r\n");
    signed_over(&scene.domain, &mail, fields)
}

/// Mails that give an order.
fn orders(scene: &Scene) -> Vec<Vec<u8>> {
    vec![
        signed(scene, &FEW, "Emergency", "\nstop truck_1\n"),
        signed(scene, &FEW, "stop truck_1", "\n"),
        signed(
            scene,
            &FEW,
            "Emergency",
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\nstop truck_1\n",
        ),
        signed(scene, &MANY, "Emergency", "Content-Transfer-Encoding: base64\n\nc3RvcCB0cnVja18x\n"),
        signed(scene, &MANY, "Emergency", ALTERNATIVE),
    ]
}

/// Mails that give an order only when read differently from how their sender wrote them.
fn no_orders(scene: &Scene) -> Vec<Vec<u8>> {
    let mixed = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nstop truck_1\n--b\n\
        Content-Type: image/jpeg\n\nx\n--b\n\nnot before it is unloaded\n--b--\n";
    let outside = "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\nnot yet\n--b\n\nstop truck_1\n--b--\n";
    let otherwise = ALTERNATIVE.replace("<p>stop truck_1</p>", "<p>stop <s>truck_1</s> nothing</p>");
    let html = "Content-Type: text/html\n\n<div>stop truck_1</div><div>2</div>\n";
    let soft = "Content-Transfer-Encoding: quoted-printable\n\nstop truck_1=\n2 tomorrow\n";
    let encoded = "Content-Transfer-Encoding: base64\n\nc3RvcCB0cnVja18xIHRvbW9ycm93\n";
    // Plain texts that would say something else if they were decoded.
    let (digits, escape) = ("\nc3RvcCB0cnVja18x\n", "\nstop truck=5F1\n");
    let source = format!("\n{}", ALTERNATIVE.split_once("\n\n").unwrap().1);
    let file = "Content-Type: text/plain; name=a.txt\n\nstop truck_1\n";
    let nested = "Content-Type: message/rfc822\n\nFrom: bob@example.org\nSubject: x\n\nstop truck_1\n";
    [&FEW[..], &MANY]
        .into_iter()
        .flat_map(|fields| {
            [
                signed(scene, fields, "resume truck_1", "\nnot before 18:00\n"),
                signed(scene, fields, "Emergency", mixed),
                signed(scene, fields, "Emergency", outside),
                signed(scene, fields, "Emergency", &otherwise),
                signed(scene, fields, "stop truck_1", html),
                signed(scene, fields, "Emergency", soft),
                signed(scene, fields, "Emergency", encoded),
                signed(scene, fields, "Emergency", nested),
                signed(scene, fields, "Emergency", digits),
                signed(scene, fields, "Emergency", escape),
                signed(scene, fields, "Emergency", &source),
            ]
        })
        // Removing a field is noticed only if that field was signed; decision 0034 says what this leaves open.
        .chain([signed(scene, &MANY, "Emergency", file)])
        .collect()
}

/// Header fields to insert, or to put in place of an existing one.
fn fields() -> Vec<String> {
    let types = [
        "text/plain",
        "text/plain; charset=utf-7",
        "text/plain; name=a.txt",
        "text/html",
        "multipart/mixed; boundary=b",
        "multipart/alternative; boundary=b",
        "multipart/alternative; boundary=other",
        "message/rfc822",
        "image/jpeg",
        "nonsense",
    ];
    let mut fields: Vec<_> = types.iter().map(|kind| format!("Content-Type: {kind}")).collect();
    fields.push("Content-Type : text/html".into());
    fields.push("content-type:\r\n\ttext/html".into());
    for encoding in ["7bit", "base64", "quoted-printable", "x-unknown"] {
        for name in ["Content-Transfer-Encoding", "content-transfer-encoding ", "Content-Transfer-Encoding\t"]
        {
            fields.push(format!("{name}: {encoding}"));
        }
    }
    for disposition in ["inline", "attachment", "inline; filename=a"] {
        fields.push(format!("Content-Disposition: {disposition}"));
    }
    fields.extend(["MIME-Version: 1.0", "MIME-Version: 2.0", "no field at all"].map(str::to_owned));
    for name in ["From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From", "Resent-To", "Return-Path"] {
        fields.push(format!("{name}: Mallory <mallory@example.org>"));
    }
    for name in ["Message-ID", "In-Reply-To", "References", "Resent-Message-ID", "Content-ID"] {
        fields.push(format!("{name}: <2@example.org>"));
    }
    for name in ["Date", "Resent-Date", "Received", "Expires"] {
        fields.push(format!("{name}: Tue, 7 Jan 2025 08:00:00 +0100"));
    }
    for name in [
        "Subject",
        "Comments",
        "Keywords",
        "Content-Description",
        "Content-Language",
        "Content-Location",
        "Content-Base",
        "Content-MD5",
        "Content-Length",
        "Content-Features",
        "Encoding",
        "Lines",
        "Auto-Submitted",
        "Precedence",
        "List-Id",
        "List-Unsubscribe",
        "Importance",
        "Priority",
        "Authentication-Results",
        "ARC-Seal",
        "X-Anything",
    ] {
        fields.push(format!("{name}: resume truck_2"));
    }
    fields.push("DKIM-Signature: v=1; a=ed25519-sha256; d=example.org; s=s1; h=From; bh=AA==; b=AA==".into());
    fields
}

/// The fields of the header section, each with its folded lines, and the body with the empty line before it.
fn split(mail: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8(mail.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => *last = format!("{last}\r\n{line}"),
            _ => lines.push(line.to_owned()),
        }
    }
    (lines, format!("\r\n\r\n{body}"))
}

/// Every mail that differs in one header field: one added at the top or the bottom, one removed, or one replaced.
fn changed(mail: &[u8], fields: &[String]) -> Vec<Vec<u8>> {
    let (lines, body) = split(mail);
    let join = |lines: &[String]| (lines.join("\r\n") + &body).into_bytes();
    let mut all = Vec::new();
    let removed = |at: usize| {
        let mut rest = lines.clone();
        rest.remove(at);
        rest
    };
    all.extend((0..lines.len()).map(|at| join(&removed(at))));
    for field in fields {
        for at in [0, lines.len()] {
            let mut more = lines.clone();
            more.insert(at, field.clone());
            all.push(join(&more));
        }
        let name = field.split(':').next().unwrap().trim().to_ascii_lowercase();
        for (at, line) in lines.iter().enumerate() {
            if line.to_ascii_lowercase().starts_with(&format!("{name}:")) {
                let mut other = removed(at);
                other.insert(at, field.clone());
                all.push(join(&other));
            }
        }
    }
    all
}

#[test]
fn a_signed_order_with_any_header_field_changed_is_the_same_order_or_none() {
    let (mut same, mut none) = (0, 0);
    for mail in &MAILS.orders {
        let was = given(mail);
        assert!(was.is_some(), "{}", String::from_utf8_lossy(mail));
        for mail in changed(mail, &fields()) {
            let is = given(&mail);
            assert!(is.is_none() || is == was, "{is:?}\n{}", String::from_utf8_lossy(&mail));
            *if is.is_some() { &mut same } else { &mut none } += 1;
        }
    }
    // Both outcomes occur: a field without meaning changes nothing.
    assert!(same > 100 && none > 100, "{same} the same, {none} none");
}

#[test]
fn a_signed_mail_that_orders_nothing_orders_nothing_with_any_header_field_changed() {
    // Only fields that can change what is read; the test above covers the rest.
    let mut fields = fields();
    fields.retain(|field| {
        ["content-", "mime-", "subject", "no field"].iter().any(|name| field.to_lowercase().starts_with(name))
    });
    for mail in &MAILS.no_orders {
        for mail in [vec![mail.clone()], changed(mail, &fields)].concat() {
            assert_eq!(given(&mail), None, "{}", String::from_utf8_lossy(&mail));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same with up to four changes at once, and sometimes an inserted byte.
    #[test]
    fn many_changes_at_once_make_no_other_order(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
        byte in prop::option::of((any::<prop::sample::Index>(), 32_u8..127)),
    ) {
        let all = [&MAILS.orders[..], &MAILS.no_orders].concat();
        let mut mail = which.get(&all).clone();
        let was = given(&mail);
        let fields = fields();
        for change in changes {
            let all = changed(&mail, &fields);
            mail = change.get(&all).clone();
        }
        if let Some((at, byte)) = byte {
            let at = at.index(mail.len());
            mail.insert(at, byte);
        }
        let is = given(&mail);
        prop_assert!(is.is_none() || is == was, "{:?}\n{}", is, String::from_utf8_lossy(&mail));
    }
}
