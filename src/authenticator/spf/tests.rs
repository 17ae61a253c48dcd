// SPDX-License-Identifier: Apache-2.0
//! What the RFC's own test suite (`test/authentication/rfc7208.rs`) does not have.

use AuthResult::{Fail, Neutral, None, Pass, PermError, SoftFail, TempError};

use super::*;
use crate::zone::Zone;

/// Answers from a zone; names below `silent.example` get no answer.
struct Zoned(Zone);

impl Zoned {
    fn get<T>(&self, name: &str, of: impl Fn(&crate::zone::Records) -> Vec<T>) -> Result<Vec<T>, Unanswered> {
        if name.ends_with("silent.example") {
            return Err(Unanswered);
        }
        Ok(self.0.get(name).map(of).unwrap_or_default())
    }
}

impl Lookup for Zoned {
    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Unanswered> {
        self.get(name, |records| records.txt.clone())
    }

    async fn a(&self, name: &str) -> Result<Vec<Ipv4Addr>, Unanswered> {
        self.get(name, |records| records.a.clone())
    }

    async fn aaaa(&self, name: &str) -> Result<Vec<Ipv6Addr>, Unanswered> {
        self.get(name, |records| records.aaaa.clone())
    }

    async fn mx(&self, name: &str) -> Result<Vec<String>, Unanswered> {
        let without_dot = |(_, name): &(u16, String)| name.trim_end_matches('.').to_owned();
        self.get(name, |records| records.mx.iter().map(without_dot).collect())
    }

    async fn ptr(&self, _: IpAddr) -> Result<Vec<String>, Unanswered> {
        Err(Unanswered)
    }
}

/// Result for 192.0.2.1 sending as `Dana.R+x@example.org`.
fn result(zone: &str) -> AuthResult {
    result_of(zone, "example.org", [192, 0, 2, 1].into())
}

fn result_of(zone: &str, domain: &str, ip: IpAddr) -> AuthResult {
    let dns = Zoned(Zone::parse(&format!("$ORIGIN example.org.\n{zone}"), "test").unwrap());
    let query = Query { ip, local: "Dana.R+x", domain, helo: "mx.example.org" };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(check_host(&dns, &query))
}

#[test]
fn an_include_counts_for_the_record_that_has_it_however_deep_it_is() {
    let chain = |first: &str, second: &str| {
        result(&format!(
            "@ TXT \"v=spf1 {first}include:b.example.org ?all\"\nb TXT \"v=spf1 {second}include:c.example.org -all\"\n\
             c TXT \"v=spf1 ip4:192.0.2.1 -all\""
        ))
    };
    assert_eq!(chain("", ""), Pass);
    assert_eq!(chain("-", ""), Fail, "who matches the included record must not send");
    assert_eq!(chain("~", ""), SoftFail);
    // The included record says fail, and so the include does not match.
    assert_eq!(chain("", "-"), Neutral);
    assert_eq!(chain("-", "-"), Neutral);
}

#[test]
fn more_than_two_terms_whose_names_do_not_exist_are_an_error() {
    let voids = |terms: &str| {
        result(&format!("@ TXT \"v=spf1 {terms} ip4:192.0.2.1 -all\"\nmx MX 10 no.example.org.\n"))
    };
    assert_eq!(voids("a:no1.example.org mx:no2.example.org"), Pass);
    assert_eq!(voids("a:no1.example.org mx:no2.example.org exists:no3.example.org"), PermError);
    // The third is behind what matches: nobody asks.
    assert_eq!(voids("a:no1.example.org a:no2.example.org ip4:192.0.2.1 a:no3.example.org"), Pass);
    assert_eq!(
        voids("mx:mx.example.org mx:mx.example.org mx:mx.example.org"),
        Pass,
        "these have an exchanger"
    );
    let included = "@ TXT \"v=spf1 a:no.example.org include:b.example.org +all\"\n\
                    b TXT \"v=spf1 a:no.example.org a:no.example.org -all\"";
    assert_eq!(result(included), PermError, "they are counted over all records");
}

#[test]
fn at_most_ten_terms_ask_dns_over_all_records() {
    let many = |count: usize| {
        result(&format!(
            "@ TXT \"v=spf1 {} +all\"\nb TXT \"v=spf1 -all\"",
            "include:b.example.org ".repeat(count)
        ))
    };
    assert_eq!(many(10), Pass);
    assert_eq!(many(11), PermError);
    assert_eq!(result("@ TXT \"v=spf1 include:example.org +all\""), PermError, "itself");
    assert_eq!(result("@ TXT \"v=spf1 redirect=example.org\""), PermError, "itself");
    let exchangers = |count: usize| {
        let exchangers: String =
            (0..count).map(|n| format!("@ MX {n} m{n}\nm{n} A 198.51.100.1\n")).collect();
        result(&format!("@ TXT \"v=spf1 mx ?all\"\n{exchangers}"))
    };
    assert_eq!((exchangers(10), exchangers(11)), (Neutral, PermError));
}

#[test]
fn silence_is_a_temporary_error_unless_something_matches_before() {
    for term in ["a:silent.example", "mx:silent.example", "exists:silent.example", "include:silent.example"] {
        assert_eq!(result(&format!("@ TXT \"v=spf1 {term} +all\"")), TempError, "{term}");
        assert_eq!(result(&format!("@ TXT \"v=spf1 -all {term}\"")), Fail, "{term}");
    }
    assert_eq!(result("@ TXT \"v=spf1 redirect=silent.example\""), TempError);
    assert_eq!(result("@ TXT \"v=spf1 ptr +all\""), Pass, "ptr matches nothing then (section 5.5)");
    assert_eq!(result_of("", "silent.example", [192, 0, 2, 1].into()), TempError);
}

#[test]
fn a_local_part_with_any_character_can_be_asked_about() {
    let zone = "@ TXT \"v=spf1 exists:%{l}.users.example.org -all\"\n";
    assert_eq!(result(zone), Fail);
    assert_eq!(result(&format!("{zone}dana.r+x.users A 127.0.0.2")), Pass);
    assert_eq!(result(&format!("{zone}r+x.users A 127.0.0.2")), Fail);
}

#[test]
fn domains_are_as_dns_has_them() {
    let ip = [192, 0, 2, 1].into();
    let zone = "xn--bcher-kva.example. TXT \"v=spf1 a:%{d} -all\"\nxn--bcher-kva.example. A 192.0.2.1";
    assert_eq!(result_of(zone, "b\u{fc}cher.example", ip), Pass);
    assert_eq!(result_of(zone, "XN--BCHER-KVA.EXAMPLE.", ip), Pass);
    for domain in ["", "localhost", "a..example", &format!("{}.example", "x".repeat(64)), "[192.0.2.1]"] {
        assert_eq!(result_of(zone, domain, ip), None, "{domain}");
    }
    // An address in its IPv6 form is the IPv4 address (section 5).
    assert_eq!(
        result_of(
            "@ TXT \"v=spf1 ip4:192.0.2.0/25 -all\"",
            "example.org",
            "::ffff:192.0.2.1".parse().unwrap()
        ),
        Pass
    );
    assert_eq!(result_of("@ TXT \"v=spf1 ip6:::/0 -all\"", "example.org", ip), Fail);
    assert_eq!(result_of("@ TXT \"v=spf1 ip4:0.0.0.0/0 -all\"", "example.org", ip), Pass);
}
