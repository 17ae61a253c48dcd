// SPDX-License-Identifier: Apache-2.0
//! A receipt as a JSON file: the fields of `LedgerReceipt.msg` as JSON has them, so that the program in
//! `docs/interfaces.md` verifies the file, too. Pure, except that [`read_file`] reads the file.
//!
//! [`read`] takes what [`write()`] makes, in any order and layout, and refuses anything else; what the receipt proves is
//! left to [`Receipt::verify_offline`] and the chain.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use evidence::{Anchor, Evidence, Finding, Receipt};
use mail::MailId;
use serde::{Deserialize, Serialize};

/// Longest receipt file [bytes], several times what [`write()`] makes of the longest proof.
const MAX_BYTES: u64 = 64 * 1024;

/// Text that is not a receipt.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptFileError {
    /// The file cannot be read.
    #[error("receipt '{path}': cannot be read", path = path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Not JSON, or not the fields of a receipt.
    #[error("not a receipt as posthorn prove prints it: {0}")]
    Json(#[from] serde_json::Error),
    /// A field holds something else than it must.
    #[error("field '{field}' = {value:?}: must be {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mail_id: String,
    index: u64,
    received_at: Time,
    sender_digest: [u8; 32],
    verdict: [u8; 6],
    leaf: [u8; 32],
    batch_first: u64,
    batch_size: u32,
    root: [u8; 32],
    inclusion_proof: Vec<u8>,
    chain_id: u64,
    contract: String,
    transaction: String,
    block_number: u64,
    block_hash: String,
    stamp: Time,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    sec: u64,
    nanosec: u32,
}

/// The receipt as one line of JSON.
///
/// # Errors
/// None is expected; serde_json has none for these fields.
pub fn write(receipt: &Receipt) -> Result<String, ReceiptFileError> {
    let Receipt { evidence: Evidence { index, finding }, leaf, anchor, inclusion_proof } = receipt;
    let prefixed = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let file = File {
        mail_id: finding.mail_id.to_string(),
        index: *index,
        received_at: time(finding.received_at),
        sender_digest: finding.sender_digest,
        verdict: finding.verdict,
        leaf: *leaf,
        batch_first: anchor.first,
        batch_size: anchor.count,
        root: anchor.root,
        inclusion_proof: inclusion_proof.concat(),
        chain_id: anchor.chain_id,
        contract: prefixed(&anchor.contract),
        transaction: prefixed(&anchor.transaction),
        block_number: anchor.block_number,
        block_hash: prefixed(&anchor.block_hash),
        stamp: time(anchor.anchored_at),
    };
    Ok(serde_json::to_string(&file)? + "\n")
}

/// Reads a receipt.
///
/// # Errors
/// Names the field that is not as [`write()`] writes it.
pub fn read(text: &str) -> Result<Receipt, ReceiptFileError> {
    let file: File = serde_json::from_str(text)?;
    let (proof, rest) = file.inclusion_proof.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(ReceiptFileError::Field {
            field: "inclusion_proof",
            value: format!("{} bytes", file.inclusion_proof.len()),
            rule: "hashes of 32 bytes each".to_owned(),
        });
    }
    Ok(Receipt {
        evidence: Evidence {
            index: file.index,
            finding: Finding {
                mail_id: MailId::from_bytes(digits("mail_id", &file.mail_id)?),
                received_at: moment("received_at", &file.received_at)?,
                sender_digest: file.sender_digest,
                verdict: file.verdict,
            },
        },
        leaf: file.leaf,
        anchor: Anchor {
            first: file.batch_first,
            count: file.batch_size,
            root: file.root,
            chain_id: file.chain_id,
            contract: digits("contract", &file.contract)?,
            transaction: digits("transaction", &file.transaction)?,
            block_number: file.block_number,
            block_hash: digits("block_hash", &file.block_hash)?,
            anchored_at: moment("stamp", &file.stamp)?,
        },
        inclusion_proof: proof.to_vec(),
    })
}

/// Reads a receipt from the file at `path`.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn read_file(path: &Path) -> Result<Receipt, ReceiptFileError> {
    let failed = |source| ReceiptFileError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(io::Error::other(format!("must have at most {MAX_BYTES} bytes"))));
    }
    read(&text)
}

/// What a receipt whose proof holds says, in one sentence without an end.
pub fn statement(receipt: &Receipt) -> String {
    let Anchor { root, chain_id, contract, transaction, block_number, .. } = &receipt.anchor;
    let verdict = match receipt.evidence.finding.verdict {
        [1, ..] => "authenticated",
        _ => "not authenticated",
    };
    format!(
        "mail {}, its sender {verdict}, is leaf {} under root {}; anchored by contract 0x{} on chain {chain_id}, \
         block {block_number}, transaction 0x{}",
        receipt.evidence.finding.mail_id,
        receipt.evidence.index,
        hex::encode(root),
        hex::encode(contract),
        hex::encode(transaction)
    )
}

fn time(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs(), nanosec: since.subsec_nanos() }
}

fn moment(field: &'static str, time: &Time) -> Result<SystemTime, ReceiptFileError> {
    let since = (time.nanosec < 1_000_000_000).then(|| Duration::new(time.sec, time.nanosec));
    since.and_then(|since| UNIX_EPOCH.checked_add(since)).ok_or_else(|| ReceiptFileError::Field {
        field,
        value: format!("{}.{:09}", time.sec, time.nanosec),
        rule: "a time with less than 1000000000 nanoseconds".to_owned(),
    })
}

fn digits<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ReceiptFileError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).map_err(|_| {
        let value = text.chars().take(80).collect();
        ReceiptFileError::Field { field, value, rule: format!("{} hex digits", 2 * N) }
    })?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use evidence::merkle::Tree;

    pub(crate) fn receipt() -> Receipt {
        let finding = |number: u64| Finding {
            mail_id: MailId::of(&number.to_be_bytes()),
            received_at: UNIX_EPOCH + Duration::new(1_790_000_000, 7),
            sender_digest: [9; 32],
            verdict: [1, 2, 2, 2, 2, 2],
        };
        let batch: Vec<_> = (10..15).map(|index| Evidence { index, finding: finding(index) }).collect();
        let tree = Tree::new(batch.iter().map(Evidence::leaf).collect());
        let anchor = Anchor {
            first: 10,
            count: 5,
            root: tree.root(),
            chain_id: 1,
            contract: [1; 20],
            transaction: [2; 32],
            block_number: 3,
            block_hash: [4; 32],
            anchored_at: UNIX_EPOCH + Duration::from_secs(1_790_000_009),
        };
        let evidence = batch[2].clone();
        Receipt { leaf: evidence.leaf(), evidence, anchor, inclusion_proof: tree.proof(2).unwrap() }
    }

    #[test]
    fn a_receipt_survives_the_file() {
        let text = write(&receipt()).unwrap();
        assert!(text.contains("\"contract\":\"0x0101") && text.ends_with("}\n"), "{text}");
        let read = read(&text).unwrap();
        assert_eq!(read, receipt());
        assert_eq!(read.verify_offline(), Ok(()));
    }

    #[test]
    fn what_is_no_receipt_is_refused_by_field() {
        let text = write(&receipt()).unwrap();
        let refused = |from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            read(&changed).unwrap_err().to_string()
        };
        assert!(refused("\"contract\":\"0x0101", "\"contract\":\"0x01").contains("'contract'"));
        assert!(refused("\"contract\":\"0x0101", "\"contract\":\"0x01").contains("must be 40 hex digits"));
        assert!(refused("\"nanosec\":7", "\"nanosec\":1000000000").contains("'received_at'"));
        assert!(refused("\"index\":12", "\"index\":-1").contains("not a receipt"));
        assert!(refused("\"index\"", "\"place\"").contains("unknown field `place`"));
        assert!(refused("\"inclusion_proof\":[", "\"inclusion_proof\":[1,").contains("97 bytes"));
        assert!(refused("\"leaf\":[", "\"leaf\":[1,").contains("not a receipt"));
        assert!(read("").unwrap_err().to_string().contains("not a receipt"));
    }

    #[test]
    fn a_file_is_read_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("receipt.json");
        let error = read_file(&path).unwrap_err().to_string();
        assert_eq!(error, format!("receipt '{}': cannot be read", path.display()));
        std::fs::write(&path, write(&receipt()).unwrap()).unwrap();
        assert_eq!(read_file(&path).unwrap(), receipt());
    }

    #[test]
    fn a_statement_names_mail_contract_and_transaction() {
        let words = statement(&receipt());
        let (contract, transaction) = (format!("0x{}", "01".repeat(20)), format!("0x{}", "02".repeat(32)));
        let id = MailId::of(&12_u64.to_be_bytes()).to_string();
        for part in [&id, &contract, &transaction, "sender authenticated", "leaf 12"] {
            assert!(words.contains(part), "{words}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused(text in any::<String>()) {
            prop_assert!(read(&text).is_err());
        }
    }
}
