// SPDX-License-Identifier: Apache-2.0
//! Which mails say everything in one text. Only those can give an order.

use mail::{Content, parse};

fn of(text: &str) -> Content {
    parse(text.replace('\n', "\r\n").as_bytes())
}

/// A multipart of this kind; each part brings its own headers.
fn multipart(kind: &str, parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("--b\n{part}\n")).collect();
    format!("MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=b\n\n{parts}--b--\n")
}

const PLAIN: &str = "Content-Type: text/plain; charset=utf-8\n\nstop truck_1\n";
const HTML: &str = "Content-Type: text/html; charset=utf-8\n\n<div>stop <b>truck_1</b></div>\n";

#[test]
fn one_text_or_the_same_in_two_forms() {
    let both = multipart("alternative", &[PLAIN, HTML]);
    for mail in [
        "\nstop truck_1\n",
        "Content-Type: text/plain\n\nstop truck_1\n",
        "Mime-Version: 1.0 (1.0)\nContent-Type: text/plain; charset=us-ascii\n\nstop truck_1\n",
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8; format=flowed\nContent-Disposition: inline\n\nstop truck_1\n",
        "Content-Transfer-Encoding: quoted-printable\n\nstop truck=5F1=\n\n",
        "Content-Transfer-Encoding: BASE64\n\nc3RvcCB0cnVja18x\n",
        "Content-Type: text/plain; charset=iso-8859-1\n\nstop truck_1\n",
        &both,
    ] {
        let content = of(mail);
        assert!(content.text_only && !content.truncated, "{mail}");
        assert_eq!(content.text.trim(), "stop truck_1", "{mail}");
    }
}

#[test]
fn more_than_one_text_is_none() {
    let photo = "Content-Type: image/jpeg\nContent-Disposition: inline\n\nx";
    let condition = "Content-Type: text/plain\n\nnot before it is unloaded\n";
    let parts: [&[&str]; 6] =
        [&[PLAIN, photo, condition], &[PLAIN, condition], &[PLAIN, photo], &[PLAIN], &[PLAIN, HTML], &[HTML]];
    for parts in parts {
        assert!(!of(&multipart("mixed", parts)).text_only, "{parts:?}");
        assert!(!of(&multipart("related", parts)).text_only, "{parts:?}");
        if parts != [PLAIN, HTML] {
            assert!(!of(&multipart("alternative", parts)).text_only, "{parts:?}");
        }
    }
    let inner = multipart("alternative", &[PLAIN, HTML]).replace("--b", "--c").replace("=b", "=c");
    assert!(!of(&multipart("mixed", &[&inner])).text_only);
    let calendar = "Content-Type: text/calendar\n\nBEGIN:VCALENDAR\n";
    assert!(!of(&multipart("alternative", &[PLAIN, HTML, calendar])).text_only);
    assert!(
        !of(&multipart("alternative", &[PLAIN, HTML]).replace("--b--", "--b--\nnot before 18:00")).text_only
    );
}

#[test]
fn html_that_says_more_or_less_is_none() {
    for html in [
        "<div>stop truck_1</div><div>not before 18:00</div>",
        "<div>stop truck_12</div>",
        "<s>stop truck_1</s>",
        "stop truck_1<img src=cid:1>",
        "stop truck_1<span style=display:none>2</span>",
        "<style>p:before{content:'do not'}</style><p>stop truck_1</p>",
        "stop truck_1<!--[if mso]>2<![endif]-->",
        "",
    ] {
        let html = format!("Content-Type: text/html\n\n{html}\n");
        assert!(!of(&multipart("alternative", &[PLAIN, &html])).text_only, "{html}");
        assert!(!of(&html).text_only, "{html}");
    }
}

/// A program that derives the text from the HTML may lose the quote marks, and then "Thanks" is all that the sender
/// wrote.
#[test]
fn a_quote_in_one_and_not_in_the_other_is_none() {
    let mail = |plain: &str, html: &str| {
        let plain = format!("Content-Type: text/plain\n\n{plain}\n");
        multipart("alternative", &[&plain, &format!("Content-Type: text/html\n\n{html}\n")])
    };
    let quoted = "Thanks<blockquote>stop truck_1</blockquote>";
    let attributed = "Thanks<div class=gmail_quote><div class=gmail_attr>On Sat, 21 Nov 2026, Bob<br>wrote:</div>\
        <blockquote>stop truck_1</blockquote></div>";
    let outlook = "Thanks<div id=appendonsend></div><hr><div id=divRplyFwdMsg><b>From:</b> Bob</div><div>stop truck_1</div>";
    for (plain, html) in [
        ("Thanks\n\n> stop truck_1", quoted),
        ("Thanks\n\nOn Sat, 21 Nov 2026, Bob\nwrote:\n\n> stop truck_1", attributed),
        ("Thanks\n________________________________\nFrom: Bob\n\nstop truck_1", outlook),
    ] {
        assert!(of(&mail(plain, html)).text_only, "{plain}");
    }
    for (plain, html) in [
        ("Thanks\n\nstop truck_1", quoted),
        ("Thanks\n\nOn Sat, 21 Nov 2026, Bob\nwrote:\n\nstop truck_1", attributed),
        ("Thanks\nFrom: Bob\n\nstop truck_1", outlook),
        ("> stop truck_1", "<p>stop truck_1</p>"),
        (
            "Thanks\n\nstop truck_1:\n\n> stop truck_1",
            "Thanks<blockquote>stop truck_1:<br>stop truck_1</blockquote>",
        ),
    ] {
        assert!(!of(&mail(plain, html)).text_only, "{plain}");
    }
}

#[test]
fn what_can_be_read_in_another_way_is_none() {
    for mail in [
        "Content-Disposition: attachment\n\nstop truck_1\n",
        "Content-Disposition: inline; filename=a.txt\n\nstop truck_1\n",
        "Content-Disposition: unheard-of\n\nstop truck_1\n",
        "Content-Type: text/plain; name=a.txt\n\nstop truck_1\n",
        "Content-Type: text\n\nstop truck_1\n",
        "Content-Type: text/plain (really)\n\nstop truck_1\n",
        "Content-Type: text/plain; charset=utf-7\n\nstop truck_1\n",
        "Content-Type: text/plain; charset=utf-8\nContent-Type: text/plain\n\nstop truck_1\n",
        "Content-Type: text/enriched\n\nstop truck_1\n",
        "Content-Type: message/rfc822\n\n\nstop truck_1\n",
        "Content-Transfer-Encoding: x-uuencode\n\nstop truck_1\n",
        "Content-Transfer-Encoding: quoted-printable\n\nstop truck_1=\n=zz\n",
        "Content-Transfer-Encoding: base64\n\nstop truck_1\n",
        "MIME-Version: 2.0\n\nstop truck_1\n",
        "Content-Type: text/plain; charset=us-ascii\n\nstop truck_1 é\n",
        "\nstop truck_1 \u{202e}1_kcurt\n",
        "Content-Type: multipart/alternative\n\nstop truck_1\n",
        "Content-Type: multipart/alternative; boundary=none\n\nstop truck_1\n",
        "Subject: x\nno empty line before this\n\nstop truck_1\n",
    ] {
        assert!(!of(mail).text_only, "{mail}");
    }
    let encoded = multipart("alternative", &[PLAIN, HTML]);
    let encoded = encoded.replacen("MIME-Version", "Content-Transfer-Encoding: base64\nMIME-Version", 1);
    assert!(!of(&encoded).text_only);
}

#[test]
fn a_text_without_an_empty_line_before_it_is_missed_and_that_is_said() {
    let content = of("From: a@example.org\nSubject: x\nstop truck_1\nplease\n");
    assert!(content.truncated && !content.text_only);
    let part = of(&multipart("alternative", &["not before it is unloaded\n\nstop truck_1\n", HTML]));
    assert!(part.truncated && !part.text_only);
    assert!(!of("From: a@example.org\nSubject: x\n").truncated);
}

#[test]
fn html_stands_in_for_an_empty_text() {
    let empty = "Content-Type: text/plain\n\n \n";
    let content = of(&multipart("alternative", &[empty, HTML]));
    assert_eq!((content.text.as_str(), content.text_only), ("stop truck_1\n", false));
}
