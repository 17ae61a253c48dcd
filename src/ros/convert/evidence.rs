// SPDX-License-Identifier: Apache-2.0
//! Converts `EvidenceEntry` and `LedgerReceipt`.

use evidence::{
    Anchor, BlockProof, Entry, EntryError, Evidence, Kind, Receipt, Source,
    eip55::{from_eip55, to_eip55},
};

use super::{
    ConvertError, bytes_from_ros, error, hex_from_ros, id_from_ros, prefixed_hex, time_from_ros, time_to_ros,
};
use crate::msg;

/// Maximum number of entries in a request of `Record.srv`.
pub const MAX_RECORDED: usize = 1024;

/// A request that `Record.srv` does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordRefusal {
    /// More than [`MAX_RECORDED`].
    #[error("{0} entries: must be at most {MAX_RECORDED}")]
    Count(usize),
    /// One of them breaks a rule.
    #[error("entries[{place}]: {reason}")]
    Entry {
        /// Its place in the request, from 0.
        place: usize,
        /// The rule that it breaks.
        reason: ConvertError,
    },
}

/// Converts the entries of a request, all or none.
///
/// # Errors
/// The first entry that violates `EvidenceEntry.msg`, or too many of them.
pub fn entries_from_ros(messages: &[msg::EvidenceEntry]) -> Result<Vec<Entry>, RecordRefusal> {
    if messages.len() > MAX_RECORDED {
        return Err(RecordRefusal::Count(messages.len()));
    }
    let convert =
        |(place, message)| entry_from_ros(message).map_err(|reason| RecordRefusal::Entry { place, reason });
    messages.iter().enumerate().map(convert).collect()
}

/// Converts a message to an entry that another node states.
///
/// # Errors
/// Names the field that violates `EvidenceEntry.msg`. The authenticator's own kinds are refused: only it records them.
pub fn entry_from_ros(message: &msg::EvidenceEntry) -> Result<Entry, ConvertError> {
    stated(message, &[])
}

/// Converts an entry to its message, which does not have the facts.
pub fn entry_to_ros(entry: &Entry) -> msg::EvidenceEntry {
    msg::EvidenceEntry {
        kind: entry.kind().to_string(),
        source: entry.source().to_string(),
        subject: hex::encode(entry.subject()),
        digest: entry.digest().to_vec(),
    }
}

fn stated(message: &msg::EvidenceEntry, facts: &[u8]) -> Result<Entry, ConvertError> {
    let msg::EvidenceEntry { kind, source, subject, digest } = message;
    let named: Kind = kind.parse().map_err(|_| error("kind", quoted(kind), Kind::RULE))?;
    let source: Source = source.parse().map_err(|_| error("source", quoted(source), Source::RULE))?;
    let subject = id_from_ros("subject", subject)?;
    let digest = bytes_from_ros("digest", digest)?;
    Entry::with_facts(named, source, *subject.as_bytes(), digest, facts.to_vec()).map_err(|refusal| {
        match refusal {
            EntryError::NotOwn(_) if facts.is_empty() => error(
                "kind",
                quoted(kind),
                "another one: only the authenticator records this kind, with its facts",
            ),
            EntryError::NotOwn(_) => {
                error("facts", hex::encode(facts), "those that the authenticator records with this kind")
            }
            EntryError::Length(length) => error("facts", format!("{length} bytes"), "at most 63 bytes"),
            EntryError::Digest => {
                error("facts", hex::encode(facts), "those whose SHA-256 is the digest of the entry")
            }
        }
    })
}

/// A text from the graph, cut, and without characters that could end a C string.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// Converts a receipt to its message.
pub fn receipt_to_ros(receipt: &Receipt) -> msg::LedgerReceipt {
    let Receipt { evidence: Evidence { index, recorded_at, entry }, leaf, anchor, inclusion_proof } = receipt;
    msg::LedgerReceipt {
        stamp: time_to_ros(anchor.anchored_at),
        index: *index,
        recorded_at: time_to_ros(*recorded_at),
        entry: entry_to_ros(entry),
        facts: entry.facts().to_vec(),
        leaf: leaf.to_vec(),
        batch_size: anchor.count,
        batch_first: anchor.first,
        root: anchor.root.to_vec(),
        inclusion_proof: inclusion_proof.concat(),
        chain_id: anchor.chain_id,
        contract: to_eip55(&anchor.contract),
        transaction: prefixed_hex(&anchor.transaction),
        block_number: anchor.block_number,
        block_hash: prefixed_hex(&anchor.block_hash),
        revision: anchor.revision,
    }
}

/// Converts a message to a receipt. Whether it proves anything is left to [`Receipt::verify_offline`] and the chain.
///
/// # Errors
/// Names the field that violates `LedgerReceipt.msg`.
pub fn receipt_from_ros(message: &msg::LedgerReceipt) -> Result<Receipt, ConvertError> {
    let (hashes, rest) = message.inclusion_proof.as_chunks::<32>();
    if !rest.is_empty() {
        let length = format!("{} bytes", message.inclusion_proof.len());
        return Err(error("inclusion_proof", length, "hashes of 32 bytes each"));
    }
    Ok(Receipt {
        evidence: Evidence {
            index: message.index,
            recorded_at: time_from_ros(&message.recorded_at),
            entry: stated(&message.entry, &message.facts)?,
        },
        leaf: bytes_from_ros("leaf", &message.leaf)?,
        anchor: Anchor {
            first: message.batch_first,
            count: message.batch_size,
            revision: message.revision,
            root: bytes_from_ros("root", &message.root)?,
            chain_id: message.chain_id,
            contract: from_eip55(&message.contract)
                .map_err(|why| error("contract", format!("{:?}", message.contract), why.rule()))?,
            transaction: hex_from_ros("transaction", &message.transaction)?,
            block_number: message.block_number,
            block_hash: hex_from_ros("block_hash", &message.block_hash)?,
            anchored_at: time_from_ros(&message.stamp),
        },
        inclusion_proof: hashes.to_vec(),
    })
}

/// Most nodes of a trie's proof, and most bytes of one and of a header.
const MAX_NODES: usize = 64;
const MAX_NODE_BYTES: usize = 4096;

/// Converts the proof that a transaction is in its block to its message.
///
/// # Errors
/// Names the field that is longer than `BlockProof.msg` allows; on Ethereum none is.
pub fn block_proof_to_ros(proof: &BlockProof) -> Result<msg::BlockProof, ConvertError> {
    let BlockProof { header, transaction_index, transaction_proof, receipt_proof } = proof;
    let nodes = |field: &'static str, proof: &[Vec<u8>]| {
        let node =
            |node: &Vec<u8>| -> Result<_, ConvertError> { Ok(msg::TrieNode { rlp: bounded(field, node)? }) };
        if proof.len() > MAX_NODES {
            return Err(error(field, format!("{} nodes", proof.len()), "at most 64"));
        }
        proof.iter().map(node).collect::<Result<Vec<_>, _>>()
    };
    Ok(msg::BlockProof {
        header: bounded("header", header)?,
        transaction_index: *transaction_index,
        transaction_proof: nodes("transaction_proof", transaction_proof)?,
        receipt_proof: nodes("receipt_proof", receipt_proof)?,
    })
}

fn bounded(field: &'static str, bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
    if bytes.len() > MAX_NODE_BYTES {
        return Err(error(field, format!("{} bytes", bytes.len()), "at most 4096 bytes"));
    }
    Ok(bytes.to_vec())
}

/// Converts a message to the proof that a transaction is in its block; `None` if it has none. Whether it proves anything
/// is left to the chain.
pub fn block_proof_from_ros(message: msg::BlockProof) -> Option<BlockProof> {
    let msg::BlockProof { header, transaction_index, transaction_proof, receipt_proof } = message;
    let nodes = |proof: Vec<msg::TrieNode>| proof.into_iter().map(|node| node.rlp).collect();
    let (transaction_proof, receipt_proof) = (nodes(transaction_proof), nodes(receipt_proof));
    let proof = BlockProof { header, transaction_index, transaction_proof, receipt_proof };
    (!proof.header.is_empty()).then_some(proof)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use evidence::Finding;

    use super::*;
    use ::mail::MailId;

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)
    }

    fn verdict() -> Entry {
        let finding = Finding {
            mail_id: MailId::of(b"x"),
            received_at: at(),
            sender_digest: [1; 32],
            verdict: [1, 2, 3, 4, 5, 6, 7],
        };
        finding.entry(&"/authenticator".parse().unwrap())
    }

    fn order() -> Entry {
        Entry::new(Kind::ORDER, "/chatbot".parse().unwrap(), [1; 32], [2; 32]).unwrap()
    }

    fn receipt(entry: Entry) -> Receipt {
        let evidence = Evidence { index: 7, recorded_at: at(), entry };
        Receipt {
            leaf: evidence.leaf(),
            evidence,
            anchor: Anchor {
                first: 6,
                count: 3,
                revision: 2,
                root: [2; 32],
                chain_id: 9,
                contract: [3; 20],
                transaction: [4; 32],
                block_number: 5,
                block_hash: [6; 32],
                anchored_at: at(),
            },
            inclusion_proof: vec![[7; 32], [8; 32]],
        }
    }

    #[test]
    fn a_receipt_survives_the_graph_and_a_bad_one_is_refused_by_field() {
        let refused = |entry: Entry, change: fn(&mut msg::LedgerReceipt)| {
            let mut message = receipt_to_ros(&receipt(entry));
            change(&mut message);
            receipt_from_ros(&message).unwrap_err().to_string()
        };
        for entry in [verdict(), order()] {
            assert_eq!(
                receipt_from_ros(&receipt_to_ros(&receipt(entry.clone()))),
                Ok(receipt(entry.clone()))
            );
            let refused = |change| refused(entry.clone(), change);
            assert!(
                refused(|message| message.inclusion_proof.push(0)).contains("'inclusion_proof' = 65 bytes")
            );
            assert!(refused(|message| message.facts = vec![0; 63]).contains("'facts' = 0000"));
            assert!(refused(|message| message.facts = vec![0; 64]).contains("'facts' = 64 bytes"));
            assert!(refused(|message| message.entry.source.clear()).contains("'source' = \"\""));
        }
        assert!(refused(verdict(), |message| message.facts.clear()).contains("'kind' = \"mail_verdict\""));
    }

    #[test]
    fn entries_are_taken_all_or_none_and_the_refusal_names_entry_field_value_and_rule() {
        let good = entry_to_ros(&order());
        assert_eq!(entries_from_ros(&[good.clone(), good.clone()]), Ok(vec![order(), order()]));
        assert_eq!(entries_from_ros(&[]), Ok(Vec::new()));
        let refused = |change: fn(&mut msg::EvidenceEntry)| {
            let mut bad = good.clone();
            change(&mut bad);
            entries_from_ros(&[good.clone(), bad]).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|entry| entry.kind = "Order\0".into()),
            format!("entries[1]: field 'kind' = \"Order\\0\": must be {}", Kind::RULE)
        );
        // Nobody but the authenticator says what it found out.
        assert_eq!(
            refused(|entry| entry.kind = "mail_verdict".into()),
            "entries[1]: field 'kind' = \"mail_verdict\": must be another one: only the authenticator records this \
             kind, with its facts"
        );
        assert!(refused(|entry| entry.source = "chatbot".into()).contains("'source' = \"chatbot\""));
        assert!(
            refused(|entry| entry.subject = "12".into())
                .contains("'subject' = \"12\": must be 64 hex digits")
        );
        assert!(refused(|entry| entry.digest.push(0)).contains("'digest' = 33 bytes"));
        let many = vec![good; MAX_RECORDED + 1];
        assert_eq!(entries_from_ros(&many[1..]).unwrap().len(), MAX_RECORDED);
        assert_eq!(entries_from_ros(&many), Err(RecordRefusal::Count(MAX_RECORDED + 1)));
        let definition = include_str!("../../../srv/Record.srv");
        assert!(definition.contains(&format!("EvidenceEntry[<={MAX_RECORDED}] entries")));
    }
}
