// SPDX-License-Identifier: Apache-2.0
//! Converts `LedgerReceipt`.

use evidence::{Anchor, Evidence, Finding, Receipt};

use super::{
    ConvertError, bytes_from_ros, error, hex_from_ros, id_from_ros, prefixed_hex, time_from_ros, time_to_ros,
};
use crate::msg;

/// Converts a receipt to its message.
pub fn receipt_to_ros(receipt: &Receipt) -> msg::LedgerReceipt {
    let Receipt { evidence: Evidence { index, finding }, leaf, anchor, inclusion_proof } = receipt;
    msg::LedgerReceipt {
        stamp: time_to_ros(anchor.anchored_at),
        mail_id: finding.mail_id.to_string(),
        index: *index,
        received_at: time_to_ros(finding.received_at),
        sender_digest: finding.sender_digest.to_vec(),
        verdict: finding.verdict.to_vec(),
        leaf: leaf.to_vec(),
        batch_size: anchor.count,
        batch_first: anchor.first,
        root: anchor.root.to_vec(),
        inclusion_proof: inclusion_proof.concat(),
        chain_id: anchor.chain_id,
        contract: prefixed_hex(&anchor.contract),
        transaction: prefixed_hex(&anchor.transaction),
        block_number: anchor.block_number,
        block_hash: prefixed_hex(&anchor.block_hash),
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
            finding: Finding {
                mail_id: id_from_ros("mail_id", &message.mail_id)?,
                received_at: time_from_ros(&message.received_at),
                sender_digest: bytes_from_ros("sender_digest", &message.sender_digest)?,
                verdict: bytes_from_ros("verdict", &message.verdict)?,
            },
        },
        leaf: bytes_from_ros("leaf", &message.leaf)?,
        anchor: Anchor {
            first: message.batch_first,
            count: message.batch_size,
            root: bytes_from_ros("root", &message.root)?,
            chain_id: message.chain_id,
            contract: hex_from_ros("contract", &message.contract)?,
            transaction: hex_from_ros("transaction", &message.transaction)?,
            block_number: message.block_number,
            block_hash: hex_from_ros("block_hash", &message.block_hash)?,
            anchored_at: time_from_ros(&message.stamp),
        },
        inclusion_proof: hashes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use mail::MailId;

    #[test]
    fn a_receipt_survives_the_graph() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let finding = Finding {
            mail_id: MailId::of(b"x"),
            received_at: at,
            sender_digest: [1; 32],
            verdict: [1, 2, 3, 4, 5, 6],
        };
        let evidence = Evidence { index: 7, finding };
        let receipt = Receipt {
            leaf: evidence.leaf(),
            evidence,
            anchor: Anchor {
                first: 6,
                count: 3,
                root: [2; 32],
                chain_id: 9,
                contract: [3; 20],
                transaction: [4; 32],
                block_number: 5,
                block_hash: [6; 32],
                anchored_at: at,
            },
            inclusion_proof: vec![[7; 32], [8; 32]],
        };
        let message = receipt_to_ros(&receipt);
        assert_eq!(receipt_from_ros(&message), Ok(receipt));
        let torn = msg::LedgerReceipt { inclusion_proof: vec![0; 33], ..message };
        assert!(receipt_from_ros(&torn).unwrap_err().to_string().contains("'inclusion_proof' = 33 bytes"));
    }
}
