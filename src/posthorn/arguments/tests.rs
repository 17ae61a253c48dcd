// SPDX-License-Identifier: Apache-2.0
use super::*;

const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn parsed(line: &str) -> Result<Task, clap::Error> {
    parse(line.split(' ').map(OsString::from))
}

fn refused(line: &str) -> String {
    let error = parsed(line).unwrap_err();
    assert!(error.use_stderr() && error.exit_code() == 2, "{line}: {error}");
    error.to_string()
}

fn fleet(namespace: &str, seconds: u64) -> Fleet {
    Fleet { namespace: namespace.to_owned(), timeout: Duration::from_secs(seconds) }
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn reads_every_task() {
    let address = "dana@dispatch.example".to_owned();
    let id = HEX.parse().unwrap();
    assert_eq!(
        parsed("posthorn sender add dana@dispatch.example --role operator").unwrap(),
        Task::AddSender {
            fleet: fleet("/", 310),
            token: TokenFile::Default,
            address: address.clone(),
            role: Role::Operator,
            valid: [None, None],
            dkim_key: String::new(),
        }
    );
    let line = "posthorn sender add @dispatch.example --role observer --valid-from 2027-01-31 \
        --valid-until 2027-01-31T18:00:00+01:00 --dkim-key AQID";
    assert_eq!(
        parsed(line).unwrap(),
        Task::AddSender {
            fleet: fleet("/", 310),
            token: TokenFile::Default,
            address: "@dispatch.example".to_owned(),
            role: Role::Observer,
            valid: [Some(1_801_353_600), Some(1_801_414_800)],
            dkim_key: "AQID".to_owned(),
        }
    );
    assert_eq!(
        parsed("posthorn chain status --namespace fleet").unwrap(),
        Task::ChainStatus { fleet: fleet("/fleet", 30), is_shared: false }
    );
    assert_eq!(
        parsed("posthorn sender list --timeout 5").unwrap(),
        Task::ListSenders { fleet: fleet("/", 5), token: TokenFile::Default }
    );
    assert_eq!(
        parsed("posthorn sender revoke dana@dispatch.example --namespace fleet --token-file /run/t").unwrap(),
        Task::RevokeSender { fleet: fleet("/fleet", 310), token: TokenFile::At("/run/t".into()), address }
    );
    assert_eq!(
        parsed(&format!("posthorn mail show {HEX} --raw --namespace /a/b_2 --timeout 5")).unwrap(),
        Task::ShowMail { fleet: fleet("/a/b_2", 5), id, raw: true }
    );
    assert_eq!(
        parsed("posthorn mail account test dispatch --namespace fleet").unwrap(),
        Task::TestMailAccount { fleet: fleet("/fleet", 30), account: "dispatch".to_owned() }
    );
    let prove = |wanted| Task::Prove { fleet: fleet("/", 30), wanted };
    assert_eq!(parsed(&format!("posthorn prove {HEX}")).unwrap(), prove(Wanted::Mail(id)));
    let line =
        format!("posthorn prove {HEX} --kind order --source /fleet/chatbot --digest {}", "22".repeat(32));
    let (kind, source) = ("order".parse().unwrap(), "/fleet/chatbot".parse().unwrap());
    let order = Entry::new(kind, source, *id.as_bytes(), [0x22; 32]).unwrap();
    assert_eq!(parsed(&line).unwrap(), prove(Wanted::Entry(order)));
    assert_eq!(
        parsed("posthorn doctor --namespace fleet --state-directory /s").unwrap(),
        Task::Doctor { fleet: fleet("/fleet", 10), state_directory: Some("/s".into()) }
    );
    assert_eq!(
        parsed("posthorn verify receipt.json").unwrap(),
        Task::Verify { file: "receipt.json".into(), against: Against::Itself }
    );
    let contract = || Contract { endpoint: "http://h".to_owned(), address: [0x11; 20] };
    let line = format!("posthorn verify r --endpoint http://h --contract 0x{}", "11".repeat(20));
    assert_eq!(
        parsed(&line).unwrap(),
        Task::Verify { file: "r".into(), against: Against::Chain(contract()) }
    );
    let hash = "33".repeat(32);
    let by_hash = line.replace("--endpoint http://h", &format!("--block-hash 0x{hash}"));
    let against = Against::Block { address: [0x11; 20], hash: [0x33; 32] };
    assert_eq!(parsed(&by_hash).unwrap(), Task::Verify { file: "r".into(), against });
    assert!(parsed(&format!("{line} --block-hash 0x{hash}")).is_err());
    assert!(parsed(&format!("posthorn verify r --block-hash 0x{hash}")).is_err());
    assert_eq!(
        parsed("posthorn receipts --first 7 --count 2").unwrap(),
        Task::Receipts { fleet: fleet("/", 30), first: 7, count: 2 }
    );
    assert_eq!(
        parsed(&line.replace("verify r", "audit /s --from-block 7")).unwrap(),
        Task::Audit { directory: "/s".into(), contract: contract(), from_block: 7 }
    );
}

#[test]
fn none_is_no_file() {
    let task = parsed("posthorn sender revoke a@b --token-file none").unwrap();
    assert!(matches!(task, Task::RevokeSender { token: TokenFile::None, .. }), "{task:?}");
}

#[test]
fn a_refusal_names_the_argument_its_value_and_the_rule() {
    for (line, named) in [
        ("posthorn sender add dana --role operator", ["'dana'", "ADDRESS", "one bare address"]),
        ("posthorn sender add @ --role observer", ["'@'", "ADDRESS", "the domain is empty"]),
        (
            "posthorn sender add a@b --valid-until 2027-02-30",
            ["'2027-02-30'", "--valid-until", "from 1970 to 2037"],
        ),
        (
            "posthorn sender add a@b --valid-from 2040-01-01",
            ["'2040-01-01'", "--valid-from", "from 1970 to 2037"],
        ),
        ("posthorn sender add a@b --dkim-key p=AQID", ["'p=AQID'", "--dkim-key", "must be base64"]),
        ("posthorn sender add a@b --role boss", ["'boss'", "--role", "observer, operator"]),
        ("posthorn sender add a@b", ["--role", "required", "Usage"]),
        ("posthorn mail show 12", ["'12'", "ID", "64 hex digits"]),
        ("posthorn prove ID --namespace a-b", ["'a-b'", "--namespace", "letters, digits and _"]),
        ("posthorn prove ID --namespace a//b", ["'a//b'", "--namespace", "letters, digits and _"]),
        ("posthorn prove ID --timeout 0", ["'0'", "--timeout", "0.1 to 3600 seconds"]),
        ("posthorn prove ID --timeout NaN", ["'NaN'", "--timeout", "0.1 to 3600 seconds"]),
        ("posthorn prove ID --kind Order", ["'Order'", "--kind", "the first a letter"]),
        ("posthorn prove ID --kind mail_verdict", ["'mail_verdict'", "--kind", "needs its ID alone"]),
        (
            "posthorn prove ID --kind embedded_block",
            ["'embedded_block'", "--kind", "see posthorn chain prove"],
        ),
        ("posthorn chain prove x", ["'x'", "NUMBER", "invalid digit"]),
        ("posthorn prove ID --kind order --source chatbot", ["'chatbot'", "--source", "/fleet/chatbot"]),
        ("posthorn prove ID --kind order --source /c --digest 1", ["'1'", "--digest", "64 hex digits"]),
        ("posthorn prove ID --kind order --source /c", ["--digest", "required", "Usage"]),
        ("posthorn prove ID --digest HEX", ["--kind", "required", "Usage"]),
        ("posthorn verify r --endpoint u --contract 0x1", ["'0x1'", "--contract", "40 hex digits"]),
        ("posthorn verify r --endpoint http://h", ["--contract", "required", "Usage"]),
        ("posthorn audit /s", ["--endpoint", "--contract", "required"]),
        (
            "posthorn verify r --contract 0x1111111111111111111111111111111111111111",
            ["--endpoint", "required", "Usage"],
        ),
        ("posthorn burn", ["'burn'", "unrecognized subcommand", "Usage"]),
    ] {
        let words = refused(
            &line
                .replace("prove ID", &format!("prove {HEX}"))
                .replace("digest HEX", &format!("digest {HEX}")),
        );
        assert!(named.iter().all(|named| words.contains(named)), "{line}: {words}");
    }
}

#[test]
fn a_token_cannot_be_given_on_the_command_line() {
    let words = refused("posthorn sender revoke a@b --token hunter2");
    assert!(words.contains("'--token'") && !words.contains("hunter2"), "{words}");
}
