// SPDX-License-Identifier: Apache-2.0
//! A receipt as a JSON file: a version, the fields of `LedgerReceipt.msg` as JSON has them, and the proof that the
//! transaction is in its block, if it was to be had. `docs/receipt.schema.json` describes it. Pure, except that
//! [`read_file`] reads the file.
//!
//! [`read`] takes what [`write()`] makes, in any order and layout, and refuses anything else; what the receipt proves
//! is left to [`Receipt::verify_offline`], [`chain::verify_in_block`] and the chain.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use evidence::{
    Anchor, BlockProof, EmbeddedBlock, Entry, EntryError, Evidence, Finding, NameError, Receipt,
    eip55::{from_eip55, to_eip55},
};
use serde::{Deserialize, Serialize};

/// Version of the file's format.
const VERSION: u32 = 1;
/// Longest receipt file [bytes], more than what [`write()`] makes of the longest proofs.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

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
    /// A kind or source that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Facts that do not suit their entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
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
    version: u32,
    index: u64,
    recorded_at: Time,
    entry: EntryFields,
    facts: Vec<u8>,
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
    revision: u32,
    stamp: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<BlockFields>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockFields {
    header: String,
    transaction_index: u64,
    transaction_proof: Vec<String>,
    receipt_proof: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFields {
    kind: String,
    source: String,
    subject: String,
    digest: [u8; 32],
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
pub fn write(receipt: &Receipt, block: Option<&BlockProof>) -> Result<String, ReceiptFileError> {
    let Receipt { evidence: Evidence { index, recorded_at, entry }, leaf, anchor, inclusion_proof } = receipt;
    let prefixed = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let nodes = |nodes: &[Vec<u8>]| nodes.iter().map(|node| prefixed(node)).collect();
    let file = File {
        version: VERSION,
        index: *index,
        recorded_at: time(*recorded_at),
        entry: EntryFields {
            kind: entry.kind().to_string(),
            source: entry.source().to_string(),
            subject: hex::encode(entry.subject()),
            digest: *entry.digest(),
        },
        facts: entry.facts().to_vec(),
        leaf: *leaf,
        batch_first: anchor.first,
        batch_size: anchor.count,
        root: anchor.root,
        inclusion_proof: inclusion_proof.concat(),
        chain_id: anchor.chain_id,
        contract: to_eip55(&anchor.contract),
        transaction: prefixed(&anchor.transaction),
        block_number: anchor.block_number,
        block_hash: prefixed(&anchor.block_hash),
        revision: anchor.revision,
        stamp: time(anchor.anchored_at),
        block: block.map(|block| BlockFields {
            header: prefixed(&block.header),
            transaction_index: block.transaction_index,
            transaction_proof: nodes(&block.transaction_proof),
            receipt_proof: nodes(&block.receipt_proof),
        }),
    };
    Ok(serde_json::to_string(&file)? + "\n")
}

/// Reads a receipt.
///
/// # Errors
/// Names the field that is not as [`write()`] writes it.
pub fn read(text: &str) -> Result<(Receipt, Option<BlockProof>), ReceiptFileError> {
    let file: File = serde_json::from_str(text)?;
    if file.version != VERSION {
        let rule = format!("{VERSION}, the version that this posthorn reads");
        return Err(ReceiptFileError::Field { field: "version", value: file.version.to_string(), rule });
    }
    let block = file.block.map(block_proof).transpose()?;
    let (proof, rest) = file.inclusion_proof.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(ReceiptFileError::Field {
            field: "inclusion_proof",
            value: format!("{} bytes", file.inclusion_proof.len()),
            rule: "hashes of 32 bytes each".to_owned(),
        });
    }
    let receipt = Receipt {
        evidence: Evidence {
            index: file.index,
            recorded_at: moment("recorded_at", &file.recorded_at)?,
            entry: entry(file.entry, file.facts)?,
        },
        leaf: file.leaf,
        anchor: Anchor {
            first: file.batch_first,
            count: file.batch_size,
            revision: file.revision,
            root: file.root,
            chain_id: file.chain_id,
            contract: from_eip55(&file.contract).map_err(|why| ReceiptFileError::Field {
                field: "contract",
                value: file.contract.chars().take(80).collect(),
                rule: why.rule().to_owned(),
            })?,
            transaction: prefixed("transaction", &file.transaction)?,
            block_number: file.block_number,
            block_hash: prefixed("block_hash", &file.block_hash)?,
            anchored_at: moment("stamp", &file.stamp)?,
        },
        inclusion_proof: proof.to_vec(),
    };
    Ok((receipt, block))
}

fn block_proof(fields: BlockFields) -> Result<BlockProof, ReceiptFileError> {
    let nodes = |field, nodes: &[String]| -> Result<Vec<_>, _> {
        nodes.iter().map(|node| bytes(field, node)).collect()
    };
    Ok(BlockProof {
        header: bytes("block.header", &fields.header)?,
        transaction_index: fields.transaction_index,
        transaction_proof: nodes("block.transaction_proof", &fields.transaction_proof)?,
        receipt_proof: nodes("block.receipt_proof", &fields.receipt_proof)?,
    })
}

/// Reads a receipt from the file at `path`.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn read_file(path: &Path) -> Result<(Receipt, Option<BlockProof>), ReceiptFileError> {
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
    let Evidence { index, entry, .. } = &receipt.evidence;
    let what = match Finding::of(entry) {
        Some(Finding { mail_id, verdict: [1, ..], .. }) => {
            format!("mail {mail_id}, its sender authenticated,")
        }
        Some(Finding { mail_id, .. }) => format!("mail {mail_id}, its sender not authenticated,"),
        None if let Some(EmbeddedBlock { number, hash }) = EmbeddedBlock::of(entry) => {
            let source = entry.source();
            format!("block {number} of the embedded chain of {source}, hash 0x{},", hex::encode(hash))
        }
        None => format!(
            "{} {}, stated by {} with facts of SHA-256 {},",
            entry.kind(),
            hex::encode(entry.subject()),
            entry.source(),
            hex::encode(entry.digest())
        ),
    };
    format!(
        "{what} is leaf {index} under root {}; anchored by contract {} on chain {chain_id}, block {block_number}, \
         transaction 0x{}",
        hex::encode(root),
        to_eip55(contract),
        hex::encode(transaction)
    )
}

fn entry(fields: EntryFields, facts: Vec<u8>) -> Result<Entry, ReceiptFileError> {
    let EntryFields { kind, source, subject, digest } = fields;
    let subject = digits("entry.subject", &subject)?;
    Ok(Entry::with_facts(kind.parse()?, source.parse()?, subject, digest, facts)?)
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
    let decoded = hex::decode_to_slice(text, &mut bytes);
    decoded.map(|()| bytes).map_err(|_| unlike(field, text, format!("{} hex digits", 2 * N)))
}

fn prefixed<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ReceiptFileError> {
    let digits = text.strip_prefix("0x").and_then(|text| digits(field, text).ok());
    digits.ok_or_else(|| unlike(field, text, format!("0x and {} hex digits", 2 * N)))
}

fn bytes(field: &'static str, text: &str) -> Result<Vec<u8>, ReceiptFileError> {
    let digits = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    let bytes = digits.filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| unlike(field, text, "0x and two hex digits for each byte".to_owned()))
}

fn unlike(field: &'static str, text: &str, rule: String) -> ReceiptFileError {
    ReceiptFileError::Field { field, value: text.chars().take(80).collect(), rule }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use evidence::{Kind, merkle::Tree};
    use mail::MailId;

    pub(crate) fn receipt() -> Receipt {
        let finding = Finding {
            mail_id: MailId::of(b"mail"),
            received_at: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            sender_digest: [9; 32],
            verdict: [1, 2, 2, 2, 2, 2, 0],
        };
        receipt_of(finding.entry(&"/fleet/authenticator".parse().unwrap()))
    }

    fn order() -> Entry {
        Entry::new(Kind::ORDER, "/fleet/chatbot".parse().unwrap(), [0xab; 32], [0xcd; 32]).unwrap()
    }

    /// The entry as leaf 12, among others.
    fn receipt_of(entry: Entry) -> Receipt {
        let recorded_at = UNIX_EPOCH + Duration::new(1_790_000_008, 7);
        let entry = |index| if index == 12 { entry.clone() } else { order() };
        let batch: Vec<_> =
            (10..15).map(|index| Evidence { index, recorded_at, entry: entry(index) }).collect();
        let tree = Tree::new(batch.iter().map(Evidence::leaf).collect());
        let anchor = Anchor {
            first: 10,
            count: 5,
            revision: 1,
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
        let block = BlockProof {
            header: vec![1, 2],
            transaction_index: 3,
            transaction_proof: vec![vec![4], vec![5; 2]],
            receipt_proof: Vec::new(),
        };
        for (receipt, block) in [(receipt(), None), (receipt_of(order()), Some(block))] {
            let text = write(&receipt, block.as_ref()).unwrap();
            assert!(text.starts_with("{\"version\":1,"), "{text}");
            assert!(text.contains("\"contract\":\"0x0101") && text.ends_with("}\n"), "{text}");
            assert_eq!(text.contains("\"block\":{"), block.is_some());
            let read = read(&text).unwrap();
            assert_eq!(read, (receipt, block));
            assert_eq!(read.0.verify_offline(), Ok(()));
        }
    }

    #[test]
    fn what_is_no_receipt_is_refused_by_field() {
        let block = BlockProof { header: vec![1], ..BlockProof::default() };
        let text = write(&receipt(), Some(&block)).unwrap();
        let refused = |from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            read(&changed).unwrap_err().to_string()
        };
        assert!(refused("\"contract\":\"0x0101", "\"contract\":\"0x01").contains("'contract'"));
        assert!(
            refused("\"contract\":\"0x0101", "\"contract\":\"0x01").contains("must be 0x and 40 hex digits")
        );
        assert!(refused("\"nanosec\":7", "\"nanosec\":1000000000").contains("'recorded_at'"));
        assert!(refused("mail_verdict", "Mail").contains("kind \"Mail\": must be"));
        assert!(refused("/fleet/auth", "fleet/auth").contains("source \"fleet/authenticator\": must be"));
        assert!(refused("\"facts\":[0,", "\"facts\":[1,").contains("facts: their SHA-256"));
        assert!(refused("\"subject\":\"", "\"subject\":\"0").contains("'entry.subject'"));
        assert!(refused("\"index\":12", "\"index\":-1").contains("not a receipt"));
        assert!(refused("\"index\"", "\"place\"").contains("unknown field `place`"));
        assert!(refused("\"inclusion_proof\":[", "\"inclusion_proof\":[1,").contains("97 bytes"));
        assert!(refused("\"leaf\":[", "\"leaf\":[1,").contains("not a receipt"));
        assert!(
            refused("\"version\":1", "\"version\":2").contains("'version' = \"2\": must be 1, the version")
        );
        assert!(refused("\"version\":1,", "").contains("missing field `version`"));
        assert!(refused("\"header\":\"0x01\"", "\"header\":\"01\"").contains("'block.header' = \"01\""));
        assert!(
            refused("\"receipt_proof\":[]", "\"receipt_proof\":[\"0x0\"]").contains("'block.receipt_proof'")
        );
        assert!(read("").unwrap_err().to_string().contains("not a receipt"));
    }

    #[test]
    fn a_file_is_read_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("receipt.json");
        let error = read_file(&path).unwrap_err().to_string();
        assert_eq!(error, format!("receipt '{}': cannot be read", path.display()));
        std::fs::write(&path, write(&receipt(), None).unwrap()).unwrap();
        assert_eq!(read_file(&path).unwrap(), (receipt(), None));
    }

    #[test]
    fn a_statement_names_kind_subject_contract_and_transaction() {
        let words = statement(&receipt());
        let (contract, transaction) = (format!("0x{}", "01".repeat(20)), format!("0x{}", "02".repeat(32)));
        let id = MailId::of(b"mail").to_string();
        for part in [&id, &contract, &transaction, "sender authenticated", "leaf 12"] {
            assert!(words.contains(part), "{words}");
        }
        // Not to be taken for what the authenticator found out about a mail.
        let words = statement(&receipt_of(order()));
        let order = format!(
            "order {}, stated by /fleet/chatbot with facts of SHA-256 {},",
            "ab".repeat(32),
            "cd".repeat(32)
        );
        assert!(words.starts_with(&order) && !words.contains("sender"), "{words}");
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused(text in any::<String>()) {
            prop_assert!(read(&text).is_err());
        }
    }
}
