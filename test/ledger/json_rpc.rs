// SPDX-License-Identifier: Apache-2.0
//! The embedded chain's JSON-RPC over HTTP, as clients that are not ours use it, and those that mean harm.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use chain::{Connection, EMBEDDED_CHAIN_ID, Http, Ledger, Terms};
use evidence::{Anchor, Entry, Evidence, Receipt};
use mail::Role;
use serde_json::{Value, json};
use testbed::verify_receipt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::fixture::{Kind, World, anchor, options};

/// Serves the world's embedded chain.
pub async fn served(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let Connection::Embedded(chain) = world.chain.clone() else { unreachable!() };
    tokio::spawn(chain.serve(listener));
    address
}

/// Sends bytes on a connection of their own and returns status and body of the answer.
async fn exchange(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has answered may close before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(Duration::from_secs(20), talk).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Posts a body, as a well-behaved client does.
async fn post(address: SocketAddr, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    exchange(address, format!("{head}{body}").as_bytes()).await
}

/// Result of a request, or its error's message.
async fn ask(address: SocketAddr, method: &str, params: Value) -> Result<Value, String> {
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let (status, body) = post(address, &request.to_string()).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!(7), &json!("2.0")));
    match answer.get("error") {
        Some(error) => Err(error["message"].as_str().unwrap().to_owned()),
        None => Ok(answer["result"].clone()),
    }
}

#[tokio::test]
async fn another_process_with_the_key_uses_the_chain_over_http_as_any_other() {
    let world = World::new(Kind::Embedded).await;
    world.ledger().await;
    let http = Connection::Http(Http::new(&format!("http://{}", served(&world).await)).unwrap());
    // `confirmations` as the chain says: the node behind HTTP knows `finalized`.
    let options = chain::LedgerOptions { confirmations: None, ..options() };
    let ledger = Ledger::connect(http, world.key.clone(), world.dir.path(), options).await.unwrap();
    ledger.register([1; 32], Terms::of(Role::Operator)).await.unwrap();
    assert_eq!(ledger.sender([1; 32]).await.unwrap().terms.role, Role::Operator);
    let mined = anchor(&ledger, 0, vec![[3; 32]; 4]).await.unwrap();
    assert_eq!(ledger.next_index().await.unwrap(), 4);
    assert_eq!(ledger.find_anchor(0).await.unwrap().unwrap().transaction, mined.transaction);
    let revert = ledger.register([9; 32], Terms::default()).await.unwrap_err().to_string();
    assert!(revert.contains("role 0 does not exist"), "{revert}");
    // Who has the chain in its own process sees the same.
    let own = world.ledger().await;
    assert_eq!(own.sender([1; 32]).await.unwrap().terms, Terms::of(Role::Operator));
}

#[tokio::test]
async fn a_strangers_transaction_is_not_mined() {
    let world = World::new(Kind::Embedded).await;
    world.ledger().await;
    let address = served(&world).await;
    let stranger = chain::LedgerKey::load_or_create(&world.path("stranger.key")).unwrap();
    let before = ask(address, "eth_blockNumber", json!([])).await.unwrap();
    let http = Connection::Http(Http::new(&format!("http://{address}")).unwrap());
    let state = tempfile::tempdir().unwrap();
    chain::want_new_contracts(state.path()).unwrap();
    let options = chain::LedgerOptions { timeout: Duration::from_secs(2), ..options() };
    let refused = Ledger::connect(http, stranger, state.path(), options).await.err().unwrap();
    assert!(refused.to_string().contains("insufficient funds"), "{refused}");
    assert_eq!(ask(address, "eth_blockNumber", json!([])).await.unwrap(), before);
}

#[tokio::test]
async fn it_knows_what_libraries_ask_and_answers_only_for_the_newest_state() {
    let world = World::new(Kind::Embedded).await;
    let ledger = world.ledger().await;
    let registry = json!(ledger.addresses().sender_registry);
    ledger.register([1; 32], Terms::of(Role::Observer)).await.unwrap();
    let address = served(&world).await;
    let ok = async |method: &str, params: Value| ask(address, method, params).await.unwrap();
    assert_eq!(ok("eth_chainId", json!([])).await, json!(format!("{EMBEDDED_CHAIN_ID:#x}")));
    assert_eq!(ok("eth_syncing", json!([])).await, false);
    assert_eq!(ok("eth_accounts", json!([])).await, json!([]));
    assert!(ok("web3_clientVersion", json!([])).await.as_str().unwrap().starts_with("posthorn/"));
    assert_eq!(ok("eth_blockNumber", json!([])).await, "0x3");
    let fees = ok("eth_feeHistory", json!(["0x2", "latest", [10.0]])).await;
    assert_eq!((&fees["oldestBlock"], fees["baseFeePerGas"].as_array().unwrap().len()), (&json!("0x2"), 3));
    assert_eq!(
        (fees["reward"][1][0].as_str(), fees["gasUsedRatio"][0].as_f64() > Some(0.0)),
        (Some("0x1"), true)
    );
    assert_eq!(ok("eth_feeHistory", json!([9999, "0x1", null])).await["oldestBlock"], "0x0");
    let block = ok("eth_getBlockByNumber", json!(["0x3", false])).await;
    let receipts = ok("eth_getBlockReceipts", json!(["0x3"])).await;
    assert_eq!(receipts[0]["transactionHash"], block["transactions"][0]);
    assert_eq!(receipts[0]["logs"][0]["address"], registry);
    assert_eq!(ok("eth_getBlockByHash", json!([block["hash"], false])).await, block);
    assert_eq!(ok("eth_getBlockByNumber", json!(["0x4", false])).await, Value::Null);
    // `senders` of SenderRegistry is its slot 3, behind owner, pending owner and registrars: the word of the sender is at
    // keccak(key, slot).
    let place = [&[0; 31][..], &[3]].concat();
    let slot = web3::signing::keccak256(&[&[1; 32], &place[..]].concat());
    let word = ok("eth_getStorageAt", json!([registry, web3::types::U256::from(slot), "latest"])).await;
    assert!(word.as_str().unwrap().ends_with("01") && word.as_str().unwrap().len() == 66, "{word}");
    assert_eq!(ok("eth_getStorageAt", json!([registry, "0x99", "0x3"])).await, format!("0x{:064}", 0));

    // Asked for the code before the registry was deployed, "there is none" would be right and "this" a lie.
    for (method, params) in [
        ("eth_getCode", json!([registry, "0x0"])),
        ("eth_getBalance", json!([registry, "earliest"])),
        ("eth_getTransactionCount", json!([registry, "0x2"])),
        ("eth_getStorageAt", json!([registry, "0x0", "0x1"])),
        ("eth_call", json!([{ "to": registry }, { "blockNumber": "0x1" }])),
        ("eth_call", json!([{ "to": registry }, { "blockHash": block["parentHash"] }])),
        ("eth_estimateGas", json!([{ "to": registry }, "0x1"])),
    ] {
        let error = ask(address, method, params).await.unwrap_err();
        assert!(error.starts_with("historical state of block "), "{method}: {error}");
    }
    let error = ask(address, "eth_getCode", json!([registry, "0x4"])).await.unwrap_err();
    assert_eq!(error, "header not found");
    let with_hash = json!([registry, { "blockHash": block["hash"] }]);
    assert_eq!(ok("eth_getCode", with_hash).await, ok("eth_getCode", json!([registry, "latest"])).await);
    let error =
        ask(address, "eth_call", json!([{ "to": registry }, "latest", { "0x0": {} }])).await.unwrap_err();
    assert_eq!(error, "overrides are not supported");
    for (method, params) in [
        ("eth_getBlockByNumber", json!([1, false])),
        ("eth_call", json!([{ "to": registry }, 1])),
        ("eth_call", json!([{ "to": registry }, { "blockNumber": 1 }])),
        ("eth_getLogs", json!([{ "fromBlock": 0, "toBlock": 5 }])),
    ] {
        let error = ask(address, method, params).await.unwrap_err();
        assert!(error.contains("must be a tag or a number as 0x and hex"), "{method}: {error}");
    }
    let many = json!(["0x400", "latest", vec![0.0; 101]]);
    assert!(ask(address, "eth_feeHistory", many).await.unwrap_err().contains("at most 100 percentiles"));
    assert_eq!(ok("eth_getBlockReceipts", json!(["earliest"])).await, json!([]));
    let transaction = ok("eth_getTransactionByHash", json!([block["transactions"][0]])).await;
    assert_eq!(transaction["accessList"], json!([]));
    let little = json!([{ "to": registry, "gas": "0x52a9", "data": "0x8da5cb5b" }, "latest"]);
    assert_eq!(ask(address, "eth_call", little).await.unwrap_err(), "out of gas");
    assert!(ask(address, "debug_traceTransaction", json!([])).await.unwrap_err().contains("does not exist"));
    assert!(ask(address, "eth_getCode", json!(["0x12"])).await.unwrap_err().contains("invalid argument 0"));
    assert!(
        ask(address, "eth_call", json!({ "to": registry })).await.unwrap_err().contains("must be an array")
    );
}

#[tokio::test]
async fn a_browser_reaches_nothing_and_nonsense_gets_an_error() {
    let world = World::new(Kind::Embedded).await;
    let address = served(&world).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
    let request = |method: &str, host: &str, kind: &str| {
        let length = body.len();
        let head =
            format!("{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nConnection: close\r\n");
        format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let (json, own) = ("application/json", address.to_string());
    for host in [own.as_str(), "localhost", "LOCALHOST:1", "[::1]:8545", "127.0.0.2"] {
        assert_eq!(exchange(address, &request("POST", host, json)).await.0, 200, "{host}");
    }
    let with_charset = "Application/JSON; charset=utf-8";
    assert_eq!(exchange(address, &request("POST", &own, with_charset)).await.0, 200);
    // What a page may send without being asked first, a rebound name, and what is not HTTP.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "text/plain; application/json",
    ] {
        assert_eq!(exchange(address, &request("POST", &own, kind)).await.0, 415, "{kind}");
    }
    for host in
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "192.0.2.1", "[evil]:1", ""]
    {
        assert_eq!(exchange(address, &request("POST", host, json)).await.0, 403, "{host}");
    }
    for method in ["GET", "OPTIONS", "PUT", "DELETE"] {
        assert_eq!(exchange(address, &request(method, &own, json)).await.0, 405, "{method}");
    }
    assert_eq!(exchange(address, b"\0\0\0 nonsense\r\n\r\n").await.0, 400);
    let long = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {json}\r\nContent-Length: 999999999\r\n\r\n{}",
        " ".repeat(1 << 21)
    );
    assert_eq!(exchange(address, long.as_bytes()).await.0, 413);

    let error = async |body: &str| {
        let (status, text) = post(address, body).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{body}: {status} {text}"));
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{body}: {text}"))
    };
    for (nonsense, code) in [
        ("", -32700),
        ("{", -32700),
        ("\u{0}", -32700),
        ("1", -32600),
        ("null", -32600),
        ("{}", -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chain\u0000Id"}"#, -32601),
    ] {
        assert_eq!(error(nonsense).await, code, "{nonsense}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(error(&deep).await, -32700);
    let many = format!("[{}1]", "1,".repeat(1000));
    assert_eq!(error(&many).await, -32600);
    // Order and ids of a batch are kept, notifications are not answered.
    let batch = r#"[{"jsonrpc":"2.0","id":"b","method":"net_version"},{"jsonrpc":"2.0","method":"eth_chainId"},2,
                    {"jsonrpc":"2.0","id":1,"method":"nothing"}]"#;
    let answers: Value = serde_json::from_str(&post(address, batch).await.1).unwrap();
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": "b", "result": EMBEDDED_CHAIN_ID.to_string() }));
    assert_eq!((&answers[1]["error"]["code"], &answers[2]["id"]), (&json!(-32600), &json!(1)));
    assert_eq!(answers.as_array().unwrap().len(), 3);
    let silent = post(address, r#"[{"jsonrpc":"2.0","method":"eth_chainId"}]"#).await;
    assert_eq!(silent, (204, String::new()));
}

#[tokio::test]
async fn clients_that_say_nothing_and_go_away_stop_neither_others_nor_the_anchors() {
    let world = World::new(Kind::Embedded).await;
    let ledger = Arc::new(world.ledger().await);
    let address = served(&world).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Each leaves work behind: a thousand calls that nobody will read.
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_feeHistory", "params": ["0x400", "latest", [1.0]] });
    let batch = Value::Array(vec![call; 1000]).to_string();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            batch.len()
        );
        stream.write_all(format!("{head}{batch}").as_bytes()).await.unwrap();
    }
    let asks = (0..100).map(|_| tokio::spawn(async move { ask(address, "eth_chainId", json!([])).await }));
    let asks: Vec<_> = asks.collect();
    for first in 0..20 {
        let anchored = timeout(testbed::PATIENCE, anchor(&ledger, first, vec![[3; 32]])).await;
        anchored.expect("in time").unwrap();
    }
    for asked in asks {
        assert_eq!(asked.await.unwrap().unwrap(), json!(format!("{EMBEDDED_CHAIN_ID:#x}")));
    }
}

/// Steps 1 to 3 of `docs/interfaces.md`, on a receipt and on what somebody made of it.
#[tokio::test]
async fn the_documented_program_asks_the_chain_and_takes_nothing_for_granted() {
    let world = World::new(Kind::Embedded).await;
    let ledger = world.ledger().await;
    let url = format!("http://{}", served(&world).await);
    let contract = format!("{:?}", ledger.addresses().evidence_ledger);
    let entry = Entry::new(evidence::Kind::ORDER, "/chatbot".parse().unwrap(), [1; 32], [7; 32]).unwrap();
    let evidence = Evidence { index: 0, recorded_at: UNIX_EPOCH + Duration::new(1_790_000_000, 5), entry };
    let mined = anchor(&ledger, 0, vec![evidence.leaf()]).await.unwrap();
    let receipt_of = |evidence: &Evidence| Receipt {
        leaf: evidence.leaf(),
        evidence: evidence.clone(),
        anchor: Anchor {
            first: 0,
            count: 1,
            revision: 0,
            root: evidence.leaf(),
            chain_id: EMBEDDED_CHAIN_ID,
            contract: ledger.addresses().evidence_ledger.0,
            transaction: mined.transaction.0,
            block_number: mined.block_number,
            block_hash: mined.block_hash.0,
            anchored_at: UNIX_EPOCH,
        },
        inclusion_proof: Vec::new(),
    };
    let json_of = |evidence: &Evidence| -> Value {
        serde_json::from_str(&command::receipt::write(&receipt_of(evidence), None).unwrap()).unwrap()
    };
    let genuine = json_of(&evidence);
    let never_anchored = json_of(&Evidence { recorded_at: UNIX_EPOCH, ..evidence });
    let with = |field: &str, value: Value| {
        let mut receipt = genuine.clone();
        receipt[field] = value;
        receipt
    };
    let zeros = format!("0x{}", "0".repeat(64));
    let verify = async |receipt: String, url: &str, contract: &str| {
        let (file, url, contract) = (world.path("receipt.json"), url.to_owned(), contract.to_owned());
        std::fs::write(&file, receipt).unwrap();
        let output =
            tokio::task::spawn_blocking(move || verify_receipt(&file, &url, &contract)).await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains("Traceback"), "{text}");
        (output.status.code().unwrap(), text)
    };
    let (code, text) = verify(genuine.to_string(), &url, &contract).await;
    assert_eq!(code, 0, "{text}");
    let twice = genuine.to_string().replacen('{', "{\"index\":0,", 1);
    let elsewhere = format!("0x{}", "01".repeat(20));
    let nobody = format!("http://127.0.0.1:{}", testbed::free_port());
    for (receipt, url, contract, why) in [
        (genuine.to_string(), &url, &elsewhere, "not of 0x0101"),
        (with("contract", json!(elsewhere)).to_string(), &url, &elsewhere, "did not anchor this root"),
        (never_anchored.to_string(), &url, &contract, "did not anchor this root"),
        (with("transaction", json!(zeros)).to_string(), &url, &contract, "does not have the transaction"),
        (with("block_hash", json!(zeros)).to_string(), &url, &contract, "in another block"),
        (with("block_number", json!(1)).to_string(), &url, &contract, "in another block"),
        (with("chain_id", json!(1)).to_string(), &url, &contract, "of chain 1"),
        (with("batch_first", json!(0.0)).to_string(), &url, &contract, "batch_first"),
        (with("batch_size", json!(true)).to_string(), &url, &contract, "batch_size"),
        (with("facts", json!([true])).to_string(), &url, &contract, "facts"),
        (twice, &url, &contract, "index is there twice"),
        ("[".repeat(100_000), &url, &contract, "not a receipt"),
        ("{}".to_owned(), &url, &contract, "not a receipt"),
        (genuine.to_string(), &nobody, &contract, "cannot be asked"),
        (genuine.to_string(), &url, &"0x12".to_owned(), "must be 0x and 40 hex digits"),
    ] {
        let (code, text) = verify(receipt.clone(), url, contract).await;
        assert!(code != 0 && text.contains(why), "{why}: {code} {text}\n{:.300}", receipt);
    }
}
