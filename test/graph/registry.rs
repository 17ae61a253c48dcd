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
        let mut request = json!({ "address": address, "token": token });
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
        let junk =
            ["", "dana", "Dana <dana@dispatch.example>", "a@x.example, b@x.example", "d\u{fc}@x", &long];
        for address in junk {
            let answer = posthorn.observer.call(service, &request(index, address, &token));
            let words = answer["message"].as_str().unwrap();
            assert_eq!(answer["success"], false, "{}: {address:?}: {answer}", service.name);
            assert!(words.contains("must be one bare address, local-part@domain"), "{words}");
        }
    }
    // The refused calls changed nothing: the sender can still be revoked, once.
    let answer = posthorn.observer.call(topics::REVOKE_SENDER.facts, &request(1, SENDER, &token));
    assert_eq!(answer["success"], true, "{answer}");
    let log = posthorn.authenticator.log();
    assert!(!log.contains(&token) && !log.contains("hunter2") && !log.contains(SENDER), "{log}");
}
