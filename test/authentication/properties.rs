// SPDX-License-Identifier: Apache-2.0
//! Properties that hold for every mail.

use mail::{AuthResult::Pass, parse};
use proptest::prelude::*;

use super::scene::{MAIL, Scene};

proptest! {
    /// A proven mail that is changed is either no longer proven or still says the same.
    #[test]
    fn a_change_is_seen_or_changes_nothing(at in any::<prop::sample::Index>(), insert in any::<bool>(), what in change()) {
        let scene = Scene::new();
        let mut mail = scene.domain.sign(MAIL);
        let at = at.index(mail.len());
        let end = if insert { at } else { at + 1 };
        mail.splice(at..end, what.bytes());
        let checked = scene.check(&mail);
        if checked.dmarc == Pass {
            let (is, was) = (parse(&mail), parse(MAIL.as_bytes()));
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(is.from, was.from);
            prop_assert_eq!((is.message_id, is.date, is.reply_to), (was.message_id, was.date, was.reply_to));
            prop_assert_eq!(words(&is.subject), words(&was.subject));
            prop_assert_eq!(words(&is.text), words(&was.text));
        }
    }

    #[test]
    fn any_bytes_get_a_verdict(data in prop::collection::vec(any::<u8>(), 0..512), lines in prop::collection::vec(change(), 0..20)) {
        let scene = Scene::new();
        prop_assert_ne!(scene.check(&data).dmarc, Pass);
        prop_assert_ne!(scene.check(lines.concat() + MAIL).dmarc, Pass);
    }
}

fn change() -> impl Strategy<Value = String> {
    let lines = vec![
        "\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\r\n ",
        ":",
        "@",
        "<",
        ",",
        "From: mallory@example.com\r\n",
        "\r\nFrom : b@example.com\r\n",
        "Subject: stop\r\n",
        "subject:stop\r\n",
        "\r\nReply-To: m@example.com\r\n",
        "\r\n\r\nstop\r\n",
        "DKIM-Signature: v=1; a=rsa-sha256; l=1; b=;\r\n",
        "DKIM-Signature: v=1; a=ed25519-sha256; d=example.org; s=s1; h=:::; bh=AA==; b=AA==\r\n",
        "ARC-Seal: i=1\r\n",
        "DKIM2-Signature: i=1\r\n",
        "Content-Transfer-Encoding: base64\r\n",
    ];
    prop_oneof![prop::sample::select(lines).prop_map(str::to_owned), any::<char>().prop_map(String::from)]
}
