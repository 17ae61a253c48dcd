// SPDX-License-Identifier: Apache-2.0
use super::*;

fn text(html: &str) -> String {
    to_text(html, 100_000).text
}

#[test]
fn blocks_end_lines_and_words_in_them_do_not() {
    assert_eq!(text("<div>stop truck_1</div><div>2</div>"), "stop truck_1\n2\n");
    assert_eq!(
        text("<p>where <b>is</b>\n<i>tru</i>ck_1?<p>Thanks<br>Dana"),
        "where is truck_1?\n\nThanks\nDana\n"
    );
    assert_eq!(text("a<br><br><br>b<hr>c"), "a\n\nb\n\nc\n");
    assert_eq!(text("<ul><li>a<li>b</ul><table><tr><td>c<td>d<tr><td>e</table>"), "a\nb\n\nc\td\ne\n");
    assert_eq!(text("<pre>a\n b</pre>"), "a\nb\n");
    assert_eq!(text("&lt;a&gt; &amp; caf&eacute;&nbsp;&#x1F69A;"), "<a> & café 🚚\n");
    assert_eq!(text("tr\u{200b}uck&shy;_&zwnj;1"), "truck_1\n");
    assert_eq!(text(""), "");
}

#[test]
fn quotes_are_quotes() {
    assert_eq!(
        text("Thanks<blockquote>stop truck_1<br>now<blockquote>x</blockquote></blockquote>Dana"),
        "Thanks\n\n> stop truck_1\n> now\n\n> > x\n\nDana\n"
    );
    let gmail = "<div dir=ltr>status</div><br><div class=\"gmail_quote gmail_quote_container\"><div dir=ltr class=gmail_attr>On \
        Sat, posthorn wrote:<br></div><blockquote class=gmail_quote>stop <div>truck_1</div></blockquote><div>resume it?</div></div>";
    assert_eq!(text(gmail), "status\n\n> On Sat, posthorn wrote:\n\n> > stop\n> > truck_1\n\nresume it?\n");
    let forward = "<div class=gmail_quote>---- Forwarded message<div>stop truck_1</div></div>x";
    assert_eq!(text(forward), "> ---- Forwarded message\n> stop truck_1\nx\n");
    for separator in [
        "<div id=\"appendonsend\"></div><hr><div id=\"divRplyFwdMsg\"><b>From:</b> a</div>",
        "<div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0in 0in 0in'><b>From:</b> a</div>",
        "<hr id=zwchr><b>From:</b> a<br>",
    ] {
        let html = format!("<body><div>Thanks</div>{separator}<div>stop truck_1</div></body>");
        assert_eq!(text(&html).replace("\n\n", "\n"), "Thanks\n> From: a\n> stop truck_1\n", "{separator}");
    }
    assert_eq!(
        text("<div class=moz-cite-prefix>On x wrote:<br></div><blockquote type=cite>y</blockquote>"),
        "> On x wrote:\n\n> y\n"
    );
}

#[test]
fn struck_words_are_not_plain_words() {
    assert_eq!(text("where is <s>truck_1</s> truck_2"), "where is ~~truck_1~~ truck_2\n");
    assert_eq!(text("<del>stop truck_1<br>now</del>"), "~~stop~~ ~~truck_1~~\n~~now~~\n");
    assert_eq!(
        text("<span style='text-decoration: line-through'>a</span><strike>b</strike>"),
        "~~a~~~~b~~\n".replace("~~~~", "")
    );
}

#[test]
fn what_is_hidden_is_left_out_and_noted() {
    for html in [
        "a<span style='display:none'>b</span>",
        "a<p style='display : NONE !important'>b</p>",
        "a<div hidden><div>b</div>b</div>",
        "a<font style=font-size:0px>b</font>",
        "a<font style='color:red;font-size:1px'>b</font>",
        "a<b style=visibility:hidden>b</b>",
        "a<div style='mso-hide:all;max-height:0'>b</div>",
    ] {
        let read = to_text(html, 100);
        assert_eq!((read.text.trim(), read.more), ("a", true), "{html}");
    }
    for html in [
        "a<span style='display:none'> </span>",
        "<head><title>b</title><style>p{margin:0}</style></head>a<!-- b -->",
        "a<script>b</script>",
        "<!--[if mso]><xml><o:p></o:p></xml><![endif]-->a",
    ] {
        let read = to_text(html, 100);
        assert_eq!((read.text.trim(), read.more), ("a", false), "{html}");
    }
    assert_eq!(text("<p style='display:none'>a<p>b"), "b\n");
}

#[test]
fn notes_what_a_reader_sees_beside_the_text() {
    for html in [
        "a<img src=x>",
        "a<div style='background:url(x)'></div>",
        "<style>p:after{content: 'b'}</style>a",
        "<style>.x{display:none}</style>a",
        "a<!--[if mso]>b<![endif]-->",
        "a<input value=b>",
    ] {
        assert!(to_text(html, 100).more, "{html}");
    }
    assert!(!to_text("<html><body lang=EN><p class=MsoNormal>a<o:p></o:p></p></body></html>", 100).more);
}

#[test]
fn a_bound_cuts_and_says_so() {
    assert!(to_text(&"<blockquote>".repeat(300), 100).cut);
    assert!(!to_text(&"<blockquote>".repeat(200), 100).cut);
    assert!(to_text(&"x".repeat(200), 100).cut);
}
