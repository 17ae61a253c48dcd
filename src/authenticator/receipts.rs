// SPDX-License-Identifier: Apache-2.0
//! Publishes the receipts of a batch in portions.
//!
//! A subscriber with the topic's queue depth misses none, provided that it reads a full queue within a second.
//!
//! [`super::anchor`] produces the receipts; the caller passes in how to publish one.

use std::time::Duration;

use evidence::Receipt;
use tokio::{sync::mpsc, time::sleep};

/// Number of receipts published at once.
const PORTION: usize = 100;
/// Pause between two portions, which gives a subscriber a second for as many receipts as the topic keeps for it.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes receipts to `publish` until the channel closes.
pub async fn publish(mut receipts: mpsc::Receiver<Receipt>, mut publish: impl FnMut(Receipt)) {
    let mut portion = Vec::new();
    while receipts.recv_many(&mut portion, PORTION).await > 0 {
        let is_full = portion.len() == PORTION;
        portion.drain(..).for_each(&mut publish);
        if is_full {
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use evidence::{Anchor, Entry, Evidence, Kind};
    use std::time::{Instant, UNIX_EPOCH};

    use super::*;

    fn receipt(index: u64) -> Receipt {
        let entry = Entry::new(Kind::ORDER, "/chatbot".parse().unwrap(), [0; 32], [0; 32]).unwrap();
        let evidence = Evidence { index, recorded_at: UNIX_EPOCH, entry };
        let anchor = Anchor {
            first: 0,
            count: 1,
            revision: 0,
            root: [0; 32],
            chain_id: 1,
            contract: [0; 20],
            transaction: [0; 32],
            block_number: 1,
            block_hash: [0; 32],
            anchored_at: UNIX_EPOCH,
        };
        Receipt { leaf: evidence.leaf(), evidence, anchor, inclusion_proof: Vec::new() }
    }

    #[test]
    fn a_large_batch_goes_out_whole_in_order_and_no_faster_than_a_subscriber_reads() {
        let (sender, receipts) = mpsc::channel(1000);
        for index in 0..250 {
            sender.try_send(receipt(index)).unwrap();
        }
        drop(sender);
        let mut published = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(publish(receipts, |receipt| published.push((receipt.evidence.index, Instant::now()))));
        assert!(published.iter().map(|(index, _)| *index).eq(0..250));
        for (at, (_, time)) in published.iter().enumerate().skip(PORTION) {
            assert!(*time - published[at - PORTION].1 >= PAUSE / 2, "{at}");
        }
    }
}
