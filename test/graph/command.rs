// SPDX-License-Identifier: Apache-2.0
//! The command `posthorn` against a running graph.

use std::{fs, process::Command};

use evidence::{Entry, Kind, log::EvidenceLog};
use mail::{MailId, Role};
use ros::topics;
use testbed::{
    executable, free_port,
    posthorn::{SENDER, Unready},
    run_posthorn, wait_for,
};

use super::chain::fund_authenticator;
use crate::ledger::fixture::Anvil;

#[test]
fn the_command_registers_shows_and_proves() {
    let anvil = Anvil::start(free_port());
    let endpoint = anvil.endpoint();
    let parameters = [("ethereum_endpoint", endpoint.as_str()), ("confirmations", "1")];
    let mut posthorn = Unready::start(&[topics::MAIL_RECEIPTS.facts], &parameters).0;
    fund_authenticator(&posthorn, &anvil);
    posthorn.authenticator.wait_for_log("connected to the chain");
    posthorn.wait_for_vehicles();
    posthorn.register("first@dispatch.example", Role::Observer);
    let token = posthorn.registry_token();
    let file = posthorn.authenticator_state().join("registry.token").display().to_string();

    let add = ["sender", "add", SENDER, "--role", "operator", "--token-file", &file];
    let (code, output, error) = run_posthorn(&posthorn.domain, &add);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    assert!(output.starts_with(&format!("{SENDER} is registered as operator, transaction 0x")), "{output}");
    posthorn.authenticator.wait_for_log("caller=\"user ");

    // The text would clear the screen of whoever looks at it.
    let data = posthorn.question("command", "status", "status\x1b[2J");
    let id = posthorn.accept(SENDER, &data).to_string();
    let receipt =
        wait_for("the mail is anchored", || match run_posthorn(&posthorn.domain, &["prove", &id]) {
            (0, receipt, _) => Some(receipt),
            (1, output, error) if error.contains("not anchored yet") && output.is_empty() => None,
            other => panic!("prove: {other:?}"),
        });
    // A process of its own reads what the other wrote, without the graph.
    let kept = posthorn.authenticator_state().join("receipt.json");
    fs::write(&kept, &receipt).unwrap();
    let kept = kept.display().to_string();
    let (code, output, error) = run_posthorn(&posthorn.domain, &["verify", &kept]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    assert!(output.contains(&id) && output.contains("sender authenticated"), "{output}");
    let contract = serde_json::from_str::<serde_json::Value>(&receipt).expect("JSON")["contract"].clone();
    let on_chain = ["verify", &kept, "--endpoint", &endpoint, "--contract", contract.as_str().unwrap()];
    let (code, output, error) = run_posthorn(&posthorn.domain, &on_chain);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    assert!(output.starts_with("Proven: mail ") && output.contains(&id), "{output}");
    // Nor is a node needed by who knows the block's hash.
    let block_hash = serde_json::from_str::<serde_json::Value>(&receipt).expect("JSON")["block_hash"].clone();
    let by_hash = ["verify", &kept, "--contract", contract.as_str().unwrap(), "--block-hash"];
    let (code, output, error) =
        run_posthorn(&posthorn.domain, &[&by_hash[..], &[block_hash.as_str().unwrap()]].concat());
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    assert!(output.starts_with("Proven, if block 0x") && output.contains(&id), "{output}");
    let another = format!("0x{}", "22".repeat(32));
    let (code, output, error) = run_posthorn(&posthorn.domain, &[&by_hash[..], &[another.as_str()]].concat());
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("the block hash"), "{error}");
    let (code, lines, error) = run_posthorn(&posthorn.domain, &["receipts"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let in_range: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((in_range.len(), &in_range[0]["entry"]["subject"]), (1, &serde_json::json!(id)));
    let (code, lines, _) = run_posthorn(&posthorn.domain, &["receipts", "--first", "1"]);
    assert_eq!((code, lines.as_str()), (0, ""));
    let state = posthorn.authenticator_state().display().to_string();
    let audit = ["audit", &state, "--endpoint", &endpoint, "--contract", contract.as_str().unwrap()];
    let (code, output, error) = run_posthorn(&posthorn.domain, &audit);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    assert!(
        output.starts_with("Log and chain agree. Leaves in the log: 1, of mails: 1, of other kinds: 0; on chain: 1, in batches: 1;"),
        "{output}"
    );
    // Blocks that are not read, and a contract that is no evidence ledger, are not "nothing anchored".
    let (code, output, error) =
        run_posthorn(&posthorn.domain, &[&audit[..], &["--from-block", "999999"]].concat());
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("the contract has anchored 1; not all of the chain was read"), "{error}");
    let addresses = fs::read_to_string(posthorn.authenticator_state().join("contracts.json")).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&addresses).expect("JSON");
    let registry = addresses["sender_registry"].as_str().unwrap();
    let (code, output, error) = run_posthorn(&posthorn.domain, &[&audit[..5], &[registry]].concat());
    assert_eq!((code, output.as_str()), (1, ""), "{error}");
    // Somebody else's log.
    let copy = tempfile::tempdir().unwrap();
    let mut other = EvidenceLog::open(&copy.path().join("evidence")).unwrap().0;
    let entry = Entry::new(Kind::ORDER, "/chatbot".parse().unwrap(), [0; 32], [0; 32]).unwrap();
    other.append(&[entry], std::time::SystemTime::now()).unwrap();
    let copy = copy.path().display().to_string();
    let (code, output, error) =
        run_posthorn(&posthorn.domain, &[&audit[..1], &[copy.as_str()], &audit[2..]].concat());
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("its root is not that of the evidence log"), "{error}");
    // Another contract of the chain says nothing about this receipt.
    let elsewhere = format!("0x{}", "11".repeat(20));
    let (code, output, error) =
        run_posthorn(&posthorn.domain, &["verify", &kept, "--endpoint", &endpoint, "--contract", &elsewhere]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("the contract"), "{error}");
    fs::write(&kept, receipt.replace("/authenticator", "/somebody_else")).unwrap();
    let (code, output, error) = run_posthorn(&posthorn.domain, &["verify", &kept]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("the leaf is not the hash of what it is said to prove"), "{error}");
    let receipt: serde_json::Value = serde_json::from_str(&receipt).expect("JSON");
    let published =
        posthorn.observer.message(topics::MAIL_RECEIPTS.facts, |receipt| receipt["entry"]["subject"] == id);
    let mut fields = receipt.clone();
    let added = ["version", "block"].map(|name| fields.as_object_mut().unwrap().remove(name).is_some());
    assert_eq!(
        (fields, added),
        (published, [true, true]),
        "the file has the fields of the message, and two more"
    );
    assert_eq!(receipt["facts"][44], 1, "the sender was registered when the mail came: {receipt}");
    assert_eq!(receipt["entry"]["source"], "/authenticator");

    let (code, shown, error) = run_posthorn(&posthorn.domain, &["mail", "show", &id]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(shown.contains("Subject: status\n") && shown.contains("status\\u{1b}[2J"), "{shown:?}");
    let (code, raw, _) = run_posthorn(&posthorn.domain, &["mail", "show", &id, "--raw"]);
    assert_eq!((code, MailId::of(raw.as_bytes()).to_string()), (0, id.clone()));

    let unknown = MailId::of(b"unknown").to_string();
    let (code, output, error) = run_posthorn(&posthorn.domain, &["mail", "show", &unknown]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.starts_with("posthorn: ") && error.contains(&unknown), "{error}");

    let state = posthorn.authenticator_state().parent().unwrap().display().to_string();
    let (code, output, error) = run_posthorn(&posthorn.domain, &["doctor", "--state-directory", &state]);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    for line in ["ok     mail_bridge: intake", "ok     chatbot: mails", "/registry.token: only its owner"] {
        assert!(output.contains(line), "{line}: {output}");
    }
    let silent = ["doctor", "--state-directory", &state, "--namespace", "silent", "--timeout", "0.5"];
    let (code, output, _) = run_posthorn(&posthorn.domain, &silent);
    assert!(code == 1 && output.contains("ERROR  node /silent/chatbot: nothing heard"), "{output}");

    // Fast DDS prints its errors to standard output, which is for results.
    let broken = posthorn.authenticator_state().join("broken.xml");
    fs::write(&broken, "<broken").unwrap();
    let mut proving = Command::new(executable("posthorn"));
    proving.args(["prove", &id]).envs(posthorn.domain.environment());
    let proved = proving.env("FASTRTPS_DEFAULT_PROFILES_FILE", &broken).output().expect("posthorn");
    let words = String::from_utf8_lossy(&proved.stderr);
    assert!(proved.status.success() && words.contains("XMLPARSER"), "{words}");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&proved.stdout).expect("JSON alone"), receipt);

    let revoke = ["sender", "revoke", SENDER, "--token-file", &file];
    let (code, output, error) = run_posthorn(&posthorn.domain, &revoke);
    assert_eq!((code, error.as_str()), (0, ""), "{output}");
    let shown = wait_for("the chain's status", || {
        let (code, output, error) = run_posthorn(&posthorn.domain, &["chain", "status"]);
        assert_eq!((code, error.as_str()), (0, ""), "{output}");
        output.contains("last anchor").then_some(output)
    });
    for line in [
        "state       anchors\n",
        "chain       31337; a transaction is final once it is in a block\n",
        "head        block ",
        &format!(
            "ledger      {}; entries anchored: 1, waiting: 0; transactions in flight: 0\n",
            contract.as_str().unwrap()
        ),
        ", entries: 1, for 0.0000",
        "gas price   ",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let absent = ["chain", "status", "--namespace", "elsewhere", "--timeout", "0.5"];
    let (code, output, error) = run_posthorn(&posthorn.domain, &absent);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("nothing heard of 'elsewhere/authenticator: ledger'"), "{error}");

    // Whom nobody knows is revoked as well, and the operator is told that it may be a mistake.
    let revoke = ["sender", "revoke", "dana@dispach.example", "--token-file", &file];
    let (code, output, error) = run_posthorn(&posthorn.domain, &revoke);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        output.contains("had neither the address nor its domain: perhaps it is written otherwise"),
        "{output}"
    );
    let domain = [
        &["sender", "add", "@partner.example", "--role", "observer", "--valid-until", "2030-01-01"][..],
        &["--dkim-key", "AQID", "--token-file", &file],
    ];
    let (code, _, error) = run_posthorn(&posthorn.domain, &domain.concat());
    assert_eq!((code, error.as_str()), (0, ""));
    let (code, output, error) = run_posthorn(&posthorn.domain, &["sender", "list", "--token-file", &file]);
    assert_eq!((code, error.as_str()), (0, ""));
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("SENDER") && lines[5] == "4 senders", "{output}");
    assert!(lines[1].starts_with("first@dispatch.example") && lines[1].contains("active"), "{output}");
    assert!(lines[2].starts_with(SENDER) && lines[2].contains("revoked"), "{output}");
    assert!(
        lines[4].starts_with("@partner.example") && lines[4].contains("valid until 2030-01-01T00:00:00Z"),
        "{output}"
    );
    let wrong = ["sender", "list", "--token-file", "none"];
    let (code, output, error) = run_posthorn(&posthorn.domain, &wrong);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.starts_with("posthorn: token: ") && !error.contains(&token), "{error}");

    let elsewhere = ["prove", &unknown, "--namespace", "elsewhere", "--timeout", "0.5"];
    let (code, _, error) = run_posthorn(&posthorn.domain, &elsewhere);
    assert_eq!(code, 1);
    assert!(error.contains("nobody serves it within 500ms (namespace /elsewhere"), "{error}");
}
