// SPDX-License-Identifier: Apache-2.0
//! The test suite of RFC 7208 (openspf.org), which pyspf's source archive has, on our evaluation of SPF.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use authenticator::spf::{Lookup, Query, Unanswered, check_host};
use mail::AuthResult;
use serde_json::Value;
use testbed::project;

/// Tests whose result is another one here, on purpose.
const STRICTER: &[(&str, AuthResult)] = &[
    // The macro `p`, which the client's own DNS decides: RFC 7208 section 7.2 advises against it.
    ("p-macro-multiple", AuthResult::PermError),
];

/// The records of a scenario, by name in lower case.
struct Zone(HashMap<String, Vec<Value>>);

impl Zone {
    fn of(scenario: &Value) -> Self {
        let names = scenario["zonedata"].as_object().into_iter().flatten();
        Self(
            names.map(|(name, records)| (name.to_lowercase(), records.as_array().unwrap().clone())).collect(),
        )
    }

    fn records(&self, name: &str, kind: &str) -> Result<Vec<Value>, Unanswered> {
        self.follow(name, kind, 0)
    }

    fn follow(&self, name: &str, kind: &str, aliases: usize) -> Result<Vec<Value>, Unanswered> {
        let Some(records) = self.0.get(&name.to_lowercase()) else { return Ok(Vec::new()) };
        let of =
            |kind: &str| records.iter().filter_map(|record| record.get(kind).cloned()).collect::<Vec<_>>();
        let mut found = of(kind);
        // A name's SPF records, of a type that is not asked for any more, stand for TXT records that it does not have.
        if kind == "TXT" && found.is_empty() {
            found = of("SPF");
        }
        found.retain(|record| record != "NONE");
        if found.iter().any(|record| record == "TIMEOUT")
            || found.is_empty() && records.iter().any(|record| record == "TIMEOUT")
        {
            return Err(Unanswered);
        }
        match of("CNAME").first().and_then(Value::as_str) {
            Some(alias) if found.is_empty() && aliases < 8 => self.follow(alias, kind, aliases + 1),
            _ => Ok(found),
        }
    }

    fn texts(&self, name: &str, kind: &str) -> Result<Vec<String>, Unanswered> {
        Ok(self.records(name, kind)?.iter().map(|record| record.as_str().unwrap().to_owned()).collect())
    }
}

impl Lookup for Zone {
    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Unanswered> {
        let bytes =
            |text: &Value| text.as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap_or(0xff)).collect();
        let one = |record: &Value| match record.as_array() {
            Some(parts) => parts.iter().map(bytes).collect::<Vec<Vec<u8>>>().concat(),
            None => bytes(record),
        };
        Ok(self.records(name, "TXT")?.iter().map(one).collect())
    }

    async fn a(&self, name: &str) -> Result<Vec<Ipv4Addr>, Unanswered> {
        Ok(self.texts(name, "A")?.iter().map(|text| text.parse().unwrap()).collect())
    }

    async fn aaaa(&self, name: &str) -> Result<Vec<Ipv6Addr>, Unanswered> {
        Ok(self.texts(name, "AAAA")?.iter().map(|text| text.parse().unwrap()).collect())
    }

    async fn mx(&self, name: &str) -> Result<Vec<String>, Unanswered> {
        let mut records = self.records(name, "MX")?;
        records.sort_by_key(|record| record[0].as_str().unwrap().parse::<u16>().unwrap());
        Ok(records.iter().map(|record| record[1].as_str().unwrap().to_owned()).collect())
    }

    async fn ptr(&self, ip: IpAddr) -> Result<Vec<String>, Unanswered> {
        let reversed = |mut parts: Vec<String>| {
            parts.reverse();
            parts.join(".")
        };
        let name = match ip {
            IpAddr::V4(v4) => {
                format!("{}.in-addr.arpa", reversed(v4.octets().iter().map(u8::to_string).collect()))
            }
            IpAddr::V6(v6) => {
                let digits = format!("{:032x}", v6.to_bits());
                format!("{}.ip6.arpa", reversed(digits.chars().map(String::from).collect()))
            }
        };
        self.texts(&name, "PTR")
    }
}

#[tokio::test]
async fn the_test_suite_of_rfc_7208_has_the_results_that_it_names() {
    let archive = project("target/venv/mailauth/sdist");
    let suite = Command::new(project("target/venv/mailauth/bin/python"))
        .arg(project("test/authentication/rfc7208.py"))
        .arg(archive)
        .output()
        .expect("pyspf: run scripts/venv mailauth");
    assert!(suite.status.success(), "{}", String::from_utf8_lossy(&suite.stderr));
    let suite = String::from_utf8(suite.stdout).expect("UTF-8");
    let (mut count, mut wrong) = (0, Vec::new());
    for scenario in suite.lines() {
        let scenario: Value = serde_json::from_str(scenario).expect("JSON");
        let zone = Zone::of(&scenario);
        for (name, test) in scenario["tests"].as_object().expect("tests") {
            let text = |field: &str| test[field].as_str().unwrap_or_default();
            let (helo, sender) = (text("helo"), text("mailfrom"));
            let (local, domain) =
                sender.rsplit_once('@').unwrap_or(("", if sender.is_empty() { helo } else { sender }));
            let query = Query { ip: text("host").parse().unwrap(), local, domain, helo };
            let result = check_host(&zone, &query).await;
            let right: Vec<_> = match STRICTER.iter().find(|(test, _)| test == name) {
                Some((_, result)) => vec![*result],
                None => test["result"].as_array().map_or_else(
                    || vec![named(text("result"))],
                    |results| results.iter().map(|result| named(result.as_str().unwrap())).collect(),
                ),
            };
            count += 1;
            if !right.contains(&result) {
                wrong.push(format!("{name} ({}): {result:?}, must be {right:?}", test["spec"]));
            }
        }
    }
    assert_eq!(count, 203);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

fn named(result: &str) -> AuthResult {
    match result {
        "none" => AuthResult::None,
        "neutral" => AuthResult::Neutral,
        "pass" => AuthResult::Pass,
        "fail" => AuthResult::Fail,
        "softfail" => AuthResult::SoftFail,
        "temperror" => AuthResult::TempError,
        "permerror" => AuthResult::PermError,
        other => panic!("{other}"),
    }
}
