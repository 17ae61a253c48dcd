// SPDX-License-Identifier: Apache-2.0
//! Checks that the program in `docs/orders.md`, for vehicles in Python, rules as `OrderGate` does.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use mail::MailId;
use serde_json::{Value, json};
use vehicle::{self, OrderGate, OrderKey, Ruling, VehicleCommand, signed_bytes};

use super::read;

const NOW_S: u64 = 1_700_000_000;

/// Orders of every kind, arranged so that each rule decides at least once: copies, older, newer, of the same moment,
/// too old, with a used id, forged.
fn orders() -> Vec<VehicleCommand> {
    let key = OrderKey::from_bytes([1; 32]);
    let mut orders = Vec::new();
    for number in 0..220u64 {
        // A deterministic scatter over few ids, dates and commands, so that they collide.
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let digit = |place: u32, of: u64| scattered / 7u64.pow(place) % of;
        let age = if digit(5, 29) == 0 { 1000 } else { 500 - number + digit(0, 30) };
        let mut order = VehicleCommand {
            command_id: [u8::try_from((number + digit(4, 12)) % 120).expect("small"); 32],
            mail_id: MailId::of(&[1]),
            vehicle: "truck_1".into(),
            command: if digit(1, 2) == 0 { vehicle::Command::Stop } else { vehicle::Command::Resume },
            ordered_by: "dana@example.org".into(),
            ordered_at: UNIX_EPOCH + Duration::new(NOW_S - age, 5),
            signature: [0; 64],
        };
        if digit(2, 23) != 0 {
            key.sign(&mut order);
        }
        orders.push(order.clone());
        if digit(3, 2) == 0 {
            orders.push(order);
        }
    }
    orders
}

#[test]
fn the_documented_gate_rules_as_ours_does() {
    let document = read("docs/orders.md");
    let program = document.split("```python\n").nth(1).expect("a program").split("```").next().expect("end");
    // Stands in for Ed25519, which Python lacks: it asserts which bytes are signed and returns our own result.
    let program = format!(
        "{program}\nimport json, sys\nfrom types import SimpleNamespace\nlines = json.load(sys.stdin, object_hook=lambda \
         fields: SimpleNamespace(**fields))\nline = None\ndef verify(signature, data):\n    assert data.hex() == \
         line.signed_bytes, line\n    return line.proven\ngate = OrderGate(verify)\nfor line in lines:\n    ruling = \
         gate.rule(line.order, {NOW_S})\n    refused = ruling not in ('take', 'repeat')\n    assert ('refuse' if refused \
         else ruling) == line.expected, (ruling, line)\n"
    );
    let key = OrderKey::from_bytes([1; 32]).public();
    let mut gate = OrderGate::new(Some(key), Duration::from_secs(900));
    let line = |order: &VehicleCommand| -> Value {
        let at = order.ordered_at.duration_since(UNIX_EPOCH).expect("after 1970");
        let expected = match gate.rule(order, UNIX_EPOCH + Duration::from_secs(NOW_S)) {
            Ruling::Take => "take",
            Ruling::Repeat => "repeat",
            Ruling::Refuse(_) => "refuse",
            Ruling::Wait => panic!("it has a key"),
        };
        json!({
            "order": {
                "command_id": hex::encode(order.command_id), "mail_id": order.mail_id.to_string(),
                "vehicle": order.vehicle, "command": order.command as u8, "ordered_by": order.ordered_by,
                "ordered_at": { "sec": at.as_secs(), "nanosec": at.subsec_nanos() },
                "signature": order.signature.to_vec(),
            },
            "signed_bytes": hex::encode(signed_bytes(order)), "proven": key.proves(order), "expected": expected,
        })
    };
    let lines: Vec<_> = orders().iter().map(line).collect();
    for ruling in ["take", "repeat", "refuse"] {
        let count = lines.iter().filter(|line| line["expected"] == ruling).count();
        assert!(count > 10, "{count} orders to {ruling}: they decide too little");
    }
    let mut python =
        Command::new("python3").arg("-c").arg(program).stdin(Stdio::piped()).spawn().expect("python3");
    let mut input = python.stdin.take().expect("piped");
    input.write_all(json!(lines).to_string().as_bytes()).expect("python3 reads");
    drop(input);
    assert!(python.wait().expect("python3").success());
}
