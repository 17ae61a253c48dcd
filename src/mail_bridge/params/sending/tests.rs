// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, path::Path};

use settings::{Value, resolve};

use super::*;
use crate::params::{Params, SPECS};

fn load(overrides: &[(&str, &str)]) -> Result<Sending, String> {
    let text = |&(name, value): &(&str, &str)| {
        let list = || value.split_whitespace().map(str::to_owned).collect();
        let is_list = name == "smarthost_fallbacks";
        (name.to_owned(), if is_list { Value::Texts(list()) } else { Value::Text(value.to_owned()) })
    };
    let values = resolve(SPECS, overrides.iter().map(text).collect::<BTreeMap<_, _>>());
    values
        .and_then(|values| Params::load(&values, Path::new("/state")))
        .map(|params| params.sending)
        .map_err(|error| error.to_string())
}

#[test]
fn a_pinned_authority_is_of_use_only_where_certificates_are_checked() {
    let ca = ("smarthost_ca_path", "/etc/ca.pem");
    for security in ["none", "opportunistic"] {
        let error = load(&[("smarthost_security", security), ca]).unwrap_err();
        assert!(
            error.starts_with("parameter 'smarthost_ca_path' = /etc/ca.pem: must be empty unless"),
            "{error}"
        );
    }
    for security in ["starttls", "tls"] {
        assert!(load(&[("smarthost_security", security), ca]).unwrap().security.is_verified());
    }
    assert_eq!(load(&[]).unwrap().security, Security::Opportunistic);
    assert!(load(&[("smarthost_security", "ssl")]).is_err());
}

#[test]
fn a_password_needs_tls_or_a_smart_host_on_this_host() {
    let login = [("smarthost_user", "robot"), ("smarthost_password_path", "/etc/password")];
    let load = |smarthost, security| {
        let more = [("smarthost", smarthost), ("smarthost_security", security)];
        load(&[&login[..], &more].concat())
    };
    for security in ["none", "opportunistic"] {
        let error = load("mail.example:25", security).unwrap_err();
        assert!(error.starts_with("parameter 'smarthost_user' = robot: must be empty unless"), "{error}");
        for local in ["127.0.0.1:25", "[::1]:25", "localhost:25", "[::ffff:127.0.0.2]:25"] {
            assert!(load(local, security).is_ok(), "{local}");
        }
    }
    for security in ["starttls", "tls"] {
        assert_eq!(load("mail.example:25", security).unwrap().login.unwrap().user, "robot");
    }
}

#[test]
fn smart_hosts_are_tried_in_order_and_are_different() {
    let fallbacks = |hosts| load(&[("smarthost", "a.example:25"), ("smarthost_fallbacks", hosts)]);
    assert_eq!(
        fallbacks("b.example:25 a.example:587").unwrap().smarthosts,
        ["a.example:25", "b.example:25", "a.example:587"]
    );
    for (hosts, error) in [
        ("b.example", "= b.example: must be host:port"),
        ("b.example:25 a.example:25", "= a.example:25: must be another smart host than those before it"),
        (
            "127.0.0.1:2424",
            "= 127.0.0.1:2424: must be another address than lmtp_listen, else answers come back as mails",
        ),
    ] {
        assert_eq!(fallbacks(hosts).unwrap_err(), format!("parameter 'smarthost_fallbacks' {error}"));
    }
    // The password would go to the fallback, too.
    let login =
        [("smarthost_user", "a"), ("smarthost_password_path", "/p"), ("smarthost_fallbacks", "b.example:25")];
    assert!(load(&login).unwrap_err().contains("b.example:25 is not this host"));
}

#[test]
fn name_and_password_come_together() {
    for (given, named) in [
        (("smarthost_user", "a"), "smarthost_password_path"),
        (("smarthost_password_path", "/p"), "smarthost_user"),
    ] {
        let error = load(&[given]).unwrap_err();
        assert!(
            error.starts_with(&format!("parameter '{named}' = \"\": must be set together with")),
            "{error}"
        );
    }
    assert!(load(&[("smarthost_user", "a\0b"), ("smarthost_password_path", "/p")]).is_err());
}

#[test]
fn a_signature_is_of_the_senders_domain() {
    let dkim = |sender, selector, domain| {
        let key = ("dkim_key_path", "/etc/dkim.pem");
        load(&[("sender_address", sender), ("dkim_selector", selector), ("dkim_domain", domain), key])
    };
    for sender in ["a@fleet.example", "a@Robots.Fleet.example"] {
        assert_eq!(dkim(sender, "2026.robot", "fleet.example").unwrap().dkim.unwrap().selector, "2026.robot");
    }
    for sender in ["a@example", "a@badfleet.example", "a@fleet.example.org"] {
        let error = dkim(sender, "robot", "fleet.example").unwrap_err();
        assert!(
            error
                .starts_with("parameter 'dkim_domain' = fleet.example: must be the domain of sender_address"),
            "{error}"
        );
    }
    for (selector, domain, named) in [
        ("", "fleet.example", "dkim_selector"),
        ("robot", "", "dkim_domain"),
        ("a;b=", "fleet.example", "dkim_selector"),
        ("robot.", "fleet.example", "dkim_selector"),
        ("robot", "fleet.example\r\nX: y", "dkim_domain"),
    ] {
        let error = dkim("a@fleet.example", selector, domain).unwrap_err();
        assert!(error.starts_with(&format!("parameter '{named}' = \"")), "{error}");
    }
    assert!(
        load(&[("dkim_selector", "robot"), ("dkim_domain", "localhost")])
            .unwrap_err()
            .contains("dkim_key_path")
    );
}

#[test]
fn knows_a_host_and_its_port() {
    assert_eq!(host_and_port("mail.example:25"), Some(("mail.example", 25)));
    assert_eq!(host_and_port("[::1]:25"), Some(("::1", 25)));
    for bad in ["mail.example", "mail.example:", "mail.example:0", ":25", "a b:25", "mail:65536", "[]:25"] {
        assert_eq!(host_and_port(bad), None, "{bad}");
    }
}
