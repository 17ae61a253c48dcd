// SPDX-License-Identifier: Apache-2.0
//! Who may register a sender, and with which role.

use std::{fs, os::unix::fs::PermissionsExt};

use mail::Role;
use ros::topics;
use serde_json::json;
use testbed::posthorn::{SENDER, Unready};

#[test]
fn nobody_registers_or_revokes_without_the_token_and_nobody_registers_junk() {
    let mut posthorn = Unready::start(&[], &[]).0;
    posthorn.register(SENDER, Role::Observer);
    let token = posthorn.registry_token();
    let file = posthorn.authenticator_state().join("registry.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let services = [topics::REGISTER_SENDER.facts, topics::REVOKE_SENDER.facts];
    let request = |service: usize, address: &str, token: &str| {
        // Who calls is in the log, and cannot write lines of its own there.
        let caller = format!("eve\n\x1b[2J{}", "x".repeat(100));
        let mut request = json!({ "address": address, "token": token, "caller": caller });
        if service == 0 {
            request["role"] = json!(Role::Operator as u8);
        }
        request
    };
    for (index, service) in services.into_iter().enumerate() {
        for wrong in ["", "hunter2", &"0".repeat(64)] {
            let answer = posthorn.observer.call(service, &request(index, SENDER, wrong));
            let words = answer["message"].as_str().unwrap();
            assert_eq!(answer["success"], false, "{}: {answer}", service.name);
            assert!(words.starts_with("token: ") && words.contains("registry_token_path"), "{words}");
            assert!(!words.contains(&token), "{words}");
        }
        let long = format!("{}@dispatch.example", "a".repeat(300));
        let junk = ["", "dana", "Dana <dana@dispatch.example>", "a@x.example, b@x.example", "@", &long];
        for address in junk {
            let answer = posthorn.observer.call(service, &request(index, address, &token));
            let words = answer["message"].as_str().unwrap();
            assert_eq!(answer["success"], false, "{}: {address:?}: {answer}", service.name);
            assert!(words.contains("must be one bare address, local-part@domain"), "{words}");
        }
    }
    for (field, value, rule) in [
        ("role", json!(0), "field 'role' = 0: must be ROLE_OBSERVER or ROLE_OPERATOR"),
        ("role", json!(3), "field 'role' = 3: must be one of ROLE_*"),
        ("address", json!("@dispatch.example"), "must be ROLE_OBSERVER for a domain"),
        (
            "valid_from",
            json!({ "sec": -1, "nanosec": 0 }),
            "field 'valid_from' = -1 s 0 ns: must be a whole second",
        ),
        (
            "valid_from",
            json!({ "sec": 1, "nanosec": 1 }),
            "field 'valid_from' = 1 s 1 ns: must be a whole second",
        ),
        (
            "valid_until",
            json!({ "sec": 0, "nanosec": 1 }),
            "field 'valid_until' = 0 s 1 ns: must be a whole second",
        ),
        ("dkim_key", json!("p=AQID"), "field 'dkim_key': must be base64"),
    ] {
        let mut request = request(0, SENDER, &token);
        request[field] = value;
        let answer = posthorn.observer.call(topics::REGISTER_SENDER.facts, &request);
        assert_eq!(answer["success"], false, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(rule), "{answer}");
    }
    let refused = posthorn.observer.call(topics::LIST_SENDERS.facts, &json!({ "token": "hunter2" }));
    assert!(refused["success"] == false && refused["senders"] == json!([]), "{refused}");

    // The refused calls changed nothing.
    let list = |posthorn: &mut testbed::posthorn::Posthorn| {
        posthorn.observer.call(topics::LIST_SENDERS.facts, &json!({ "token": token }))
    };
    let listed = list(&mut posthorn);
    assert_eq!((&listed["count"], &listed["senders"][0]["address"]), (&json!(1), &json!(SENDER)), "{listed}");
    assert_eq!(listed["senders"][0]["role"], json!(Role::Observer as u8));
    let answer = posthorn.observer.call(topics::REVOKE_SENDER.facts, &request(1, SENDER, &token));
    assert!(answer["success"] == true && answer["was_registered"] == true, "{answer}");
    let listed = list(&mut posthorn);
    assert_eq!(listed["senders"][0]["registry"], json!(mail::Registration::Revoked as u8), "{listed}");
    let log = posthorn.authenticator.log();
    let caller = format!("caller=\"eve\\n\\u{{1b}}[2J{}\"", "x".repeat(56));
    let has_line =
        |words: &str| log.lines().any(|line| line.contains(words) && line.contains(caller.as_str()));
    assert!(has_line("its token is not") && has_line("sender revoked"), "{log}");
    assert!(!log.contains(&token) && !log.contains("hunter2") && !log.contains(SENDER), "{log}");
}
