// SPDX-License-Identifier: Apache-2.0
//! Authenticates the sender of each mail (SPF, DKIM, DMARC, the registry contract) and anchors evidence of the
//! result.
//!
//! # Guarantees
//! - `authenticated` MUST hold only if DMARC passed for the one From mailbox and the registry lists it as active; see
//!   [`verdict`].
//! - A verdict MUST be synced to the evidence log before it is published; see [`core`] and [`mod@evidence::log`].
//! - Nothing on chain reveals an address or any text: digests of addresses are keyed; see [`address`].
//!
//! # Layout, in reading order
//! - [`params`]: every parameter, its default and its rules. Pure.
//! - [`zone`]: reads DNS records from a file. Pure. `dns`: answers queries from that file or from name servers.
//!   `records`: what TXT records of DKIM and DMARC mean, strictly. Pure. [`spf`]: evaluates SPF.
//!   [`silence`]: remembers which domains did not answer. Pure.
//!   [`suffixes`]: the public suffix list.
//! - `verify`: runs SPF, DKIM and DMARC on one mail. [`verdict`]: turns the results into a verdict. Pure.
//! - [`core`]: decides what happens to each delivered mail, and when. Pure. Its parts are [`intake`], which picks the
//!   mail to check next, and [`judge`], which decides when to stop waiting. `desk`: carries out what it decides.
//!   [`known`]: keeps the domains with check slots reserved for them.
//! - [`address`]: keyed digests of addresses. [`gate`]: decides who may register which sender.
//! - `store`: the log of the crate [`evidence`], shared by the node's tasks. `evidencer`: shares one sync among many
//!   entries, of mails and of other nodes.
//! - `anchor`: anchors evidence through the crate `chain`, in order, exactly once. [`pace`]: decides when. Pure.
//!   `anchoring`: connects to the chain and reports how it is. `receipts`: publishes the receipts.
//! - `registry`: asks the registry and takes changes, `registrar`: makes them. [`revocations`]: those that hold before the
//!   chain has them. [`sender`] and [`names`]: who can be registered, by name. [`key_digest`]: names a DKIM key.
//! - `shared_chain`: has the embedded chain anchored into a shared one, in the same way.
//! - `on_chain`: opens the chains for the node. [`health`]: what the node reports on `/diagnostics`. Pure.
//!
//! It does not read Authentication-Results, which anybody can write.

pub mod address;
#[cfg(feature = "net")]
pub mod anchor;
#[cfg(feature = "net")]
pub mod anchoring;
pub mod core;
#[cfg(feature = "net")]
pub mod desk;
#[cfg(feature = "net")]
pub mod dns;
#[cfg(feature = "net")]
pub mod evidencer;
pub mod gate;
pub mod health;
pub mod intake;
pub mod judge;
pub mod key_digest;
pub mod known;
pub mod names;
#[cfg(feature = "ros")]
pub mod node;
#[cfg(feature = "net")]
pub mod on_chain;
pub mod pace;
pub mod params;
#[cfg(feature = "ros")]
mod prover;
#[cfg(feature = "net")]
pub mod receipts;
#[cfg(feature = "net")]
mod records;
#[cfg(feature = "net")]
pub mod registrar;
#[cfg(feature = "net")]
pub mod registry;
pub mod revocations;
pub mod sender;
#[cfg(feature = "ros")]
mod services;
#[cfg(feature = "net")]
pub mod shared_chain;
pub mod silence;
pub mod spf;
#[cfg(feature = "net")]
pub mod store;
pub mod suffixes;
pub mod verdict;
#[cfg(feature = "net")]
pub mod verify;
#[cfg(feature = "net")]
mod watch;
pub mod zone;
