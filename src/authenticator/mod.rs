//! Who sent a mail, and the proof of it: SPF, DKIM, DMARC, the registry contract, the evidence ledger.
//!
//! # What is promised
//! - `authenticated` MUST hold only if DMARC passed for the one From mailbox and the registry names it active; see [`core`].
//! - A verdict MUST be in the evidence log, synced, before it is published (contract 5); see [`evidence`].
//! - What goes on chain reveals no address and no text: digests of addresses are keyed; see [`address`].
//!
//! # Layout, in reading order
//! - [`params`]: every parameter, its default and its rules. Pure.
//! - [`zone`]: DNS from a file. Pure. `dns`: from that, or from servers. [`silence`]: whose do not answer. Pure.
//! - `verify`: a mail to what is known of its sender.
//! - [`intake`]: which mail is verified next. Pure. [`known`]: whose have room of their own. `desk`: the tasks that do it.
//! - [`core`]: from that to the verdict. Pure. [`judge`]: in which steps, and when to stop waiting. Pure.
//! - [`address`]: keyed digests of addresses. [`gate`]: who may register a sender, and what.
//! - [`evidence`], [`merkle`]: what is hashed, the log, the proofs. `evidencer`: many findings, one sync.
//! - `ledger`: the contracts on a chain, embedded or behind JSON-RPC. `anchor`: evidence onto it, in order, once; `receipts`: of that, to the topic.
//! - `chain`: all of that in the life of the node. [`health`]: what it says of itself. Pure.
//!
//! What it does not do: ARC; reading Authentication-Results, which anybody can write.

pub mod address;
#[cfg(feature = "net")]
pub mod anchor;
#[cfg(feature = "net")]
pub mod chain;
pub mod core;
#[cfg(feature = "net")]
pub mod desk;
#[cfg(feature = "net")]
pub mod dns;
pub mod evidence;
#[cfg(feature = "net")]
pub mod evidencer;
pub mod gate;
pub mod health;
pub mod intake;
pub mod judge;
pub mod known;
#[cfg(feature = "net")]
pub mod ledger;
pub mod merkle;
#[cfg(feature = "ros")]
pub mod node;
pub mod params;
#[cfg(feature = "net")]
pub mod receipts;
#[cfg(feature = "ros")]
mod services;
pub mod silence;
#[cfg(feature = "net")]
pub mod verify;
pub mod zone;
