// SPDX-License-Identifier: Apache-2.0
//! Defines the authenticator's parameters; the only home of their defaults. Pure.
//!
//! A loaded [`Params`] satisfies the rule of every parameter and the rules between them.
//!
//! [`crate::params`] resolves names, types and ranges; opening the files and URLs is left to the modules that use
//! them.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use evidence::eip55::from_eip55;
use mail::ascii_domain;
use settings::{Default, ParamError, Rule, Spec, Values, drain_timeout};

use super::silence::Waits;

const fn text(name: &'static str, description: &'static str) -> Spec {
    Spec { name, default: Default::Text(""), rule: Rule::Any, unit: "", description }
}

const fn count(name: &'static str, default: i64, last: i64, description: &'static str) -> Spec {
    Spec { name, default: Default::Int(default), rule: Rule::IntRange(1, last), unit: "", description }
}

const fn seconds(name: &'static str, default: f64, first: f64, last: f64, description: &'static str) -> Spec {
    Spec {
        name,
        default: Default::Double(default),
        rule: Rule::DoubleRange(first, last),
        unit: "s",
        description,
    }
}

/// A gwei [wei].
pub(crate) const GWEI: u64 = 1_000_000_000;
/// The modes of evidence.
const BATCH: &str = "batch";
const EACH: &str = "each";
/// The ways of `registry_proof`.
const FINALIZED: &str = "finalized";
const WITNESS: &str = "witness";
const UNPROVEN: &str = "none";
/// Port of a DNS server given without one.
const DNS_PORT: u16 = 53;
/// Value of `registry_token_path` that disables the token.
pub const NO_TOKEN: &str = "none";
/// Directory of the evidence log in the state directory.
pub const EVIDENCE_DIRECTORY: &str = "evidence";
/// Directory of the embedded chain in the state directory.
pub const CHAIN_DIRECTORY: &str = "chain";
/// File of the registry's token in the state directory, unless `registry_token_path` names another.
pub const REGISTRY_TOKEN: &str = "registry.token";

/// All parameters of the node.
#[rustfmt::skip]
pub const SPECS: &[Spec] = &[
    text("dns_zone_file", "Zone file that answers every DNS question; empty: the servers of the system's configuration."),
    Spec { name: "dns_servers", default: Default::Texts(&[]), rule: Rule::NotEmpty, unit: "",
        description: "DNS servers that are asked, IP address or IP:port; empty: those of the system's configuration." },
    seconds("dns_timeout_s", 5.0, 0.1, 60.0, "Time for all DNS answers that one of SPF, DKIM and DMARC needs for a mail."),
    seconds("dns_silence_s", 30.0, 0.0, 3600.0, "Longest time for which a domain whose DNS did not answer is not asked again: a tenth at first, then twice as long each time."),
    Spec { name: "relays", default: Default::Texts(&[]), rule: Rule::NotEmpty, unit: "",
        description: "Public IP addresses of own hosts that pass on mail of others; SPF is not evaluated for what they deliver, nor for loopback and private addresses." },
    seconds("temperror_give_up_s", 900.0, 0.0, 86400.0, "Time since a mail was first tried, by this process, for which it is left to be delivered again if DNS does not answer; it is tried at least three times, then judged without."),
    seconds("registry_patience_s", 60.0, 0.0, 86400.0, "The same if the registry cannot be asked; also the time after the start for which mails wait for the chain."),
    count("dkim_max_signatures", 10, 100, "DKIM signatures of a mail that are evaluated."),
    Spec { name: "arc_trusted_sealers", default: Default::Texts(&[]), rule: Rule::NotEmpty, unit: "",
        description: "Domains of mailing lists and forwarders whose ARC seals are believed: if all who sealed a mail are among them and the first found DMARC to pass, a mail that they changed still proves its sender, for questions and never for orders; empty: none." },
    text("public_suffix_list", "File of the public suffix list, such as /usr/share/publicsuffix/public_suffix_list.dat; empty: the list as of this release. A signature that an order rests on must be of the author's organisation by this list, too."),
    text("ethereum_endpoint", "JSON-RPC URL of the Ethereum node, http:// or https://; empty: the embedded chain."),
    Spec { name: "ethereum_witnesses", default: Default::Texts(&[]), rule: Rule::NotEmpty, unit: "",
        description: "JSON-RPC URLs of other nodes of the same chain, best of other operators: they stand in if ethereum_endpoint cannot be reached, and a difference from it is a warning." },
    Spec { name: "registry_proof", default: Default::Text(FINALIZED), rule: Rule::OneOf(&[FINALIZED, WITNESS, UNPROVEN]), unit: "",
        description: "How the node must prove that the sender of an order is an operator (eth_getProof), or the order goes to a person. finalized: by the newest finalized block that one of ethereum_witnesses has, too, or, if there are none, by the one that the node says is; witness: by the newest block that one of them has, too; none: not at all, for chains without finality. Without witnesses a node that lies can invent a block. The embedded chain is believed." },
    Spec { name: "ethereum_plain_http", default: Default::Bool(false), rule: Rule::Any, unit: "",
        description: "Allow http:// URLs of Ethereum nodes that are not on this host: whoever is on the way can answer in its place." },
    text("embedded_rpc_listen", "Loopback address and port on which the embedded chain serves JSON-RPC over HTTP, 127.0.0.1:8545 for instance; port 0 takes a free one, empty: not served."),
    text("anchor_embedded_into", "JSON-RPC URL of a node of a shared Ethereum chain, http:// or https://, into which the blocks of the embedded chain are anchored, so that the host can be held to them by others; the account of anchor_embedded_key_path pays there. Empty: none."),
    seconds("anchor_embedded_age_s", 600.0, 1.0, 86400.0, "Age of the oldest block that the shared chain does not have at which all such blocks are anchored there."),
    text("anchor_embedded_key_path", "File of the key that signs transactions on the shared chain; empty: shared.key in the state directory, made at the first start."),
    text("anchor_embedded_key_password_path", "File of the password of anchor_embedded_key_path, if that is a keystore."),
    text("registry_address", "Address of the sender registry, 0x and 40 hex digits; empty: deployed at the first start."),
    text("ledger_address", "Address of the evidence ledger, 0x and 40 hex digits; empty: deployed at the first start."),
    Spec { name: "confirmations", default: Default::Int(0), rule: Rule::IntRange(0, 1000), unit: "",
        description: "Blocks, the transaction's included, after which it counts as final; 0: once the chain calls its block finalized, or 12 where it does not say, and 1 on the embedded chain." },
    Spec { name: "max_fee_gwei", default: Default::Int(500), rule: Rule::IntRange(1, 1_000_000), unit: "gwei",
        description: "Most that a transaction may pay per gas, tip included; while the chain asks for more, it waits." },
    count("transactions_in_flight", 16, 1000, "Batches that are sent to the chain and in no block yet; nodes keep 16 transactions of an account and perhaps more."),
    Spec { name: "evidence_mode", default: Default::Text(BATCH), rule: Rule::OneOf(&[BATCH, EACH]), unit: "",
        description: "batch: a transaction for many entries, see batch_max_mails and batch_max_age_s; each: a transaction for each entry, at once." },
    count("batch_max_mails", 1000, 1000, "Entries, such as mails and orders, after which a batch is anchored; no more than mail/receipts keeps for a subscriber."),
    seconds("batch_max_age_s", 10.0, 0.01, 86400.0, "Age of a batch's first entry after which it is anchored."),
    text("state_directory", "Folder of evidence and keys; empty: posthorn/<namespace>/authenticator below the user's state folder."),
    text("ledger_key_path", "File of the key that signs transactions; empty: in the state directory, made at the first start."),
    text("ledger_key_password_path", "File of the password of ledger_key_path, which then is a keystore of Web3 Secret Storage (version 3), as geth, Clef and Foundry write it; empty: the key is not encrypted."),
    text("registrar_key_path", "File of the key that signs registrations and revocations; empty: ledger_key_path. Only with ethereum_endpoint."),
    text("registrar_key_password_path", "File of the password of registrar_key_path, if that is a keystore."),
    text("address_key_path", "File of the key of address digests; empty: in the state directory, made at the first start."),
    text("registry_token_path", "File of the token that register_sender and revoke_sender ask for; empty: in the state directory, made at the first start; none: no token is asked for."),
    count("max_in_flight", 64, 4096, "Mails that are verified at once; a quarter of them is for domains of authenticated senders."),
    drain_timeout(10.0),
];

/// How it must be proven who is an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryProof {
    /// As of the block that the chain calls finalized.
    Finalized,
    /// As of the newest block that another node has, too.
    Witness,
}

/// Address of a contract on an Ethereum chain.
pub type ContractAddress = [u8; 20];

/// The authenticator's parameters, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Zone file that answers every DNS question; `None`: ask `dns_servers`.
    pub dns_zone_file: Option<PathBuf>,
    /// DNS servers to ask; empty: those of the system's configuration.
    pub dns_servers: Vec<SocketAddr>,
    /// How long to wait for DNS, and how long not to ask a silent domain again.
    pub dns_waits: Waits,
    /// How long after the first attempt a mail is retried if DNS does not answer.
    pub temperror_give_up: Duration,
    /// The same if the registry cannot be asked; also how long mails wait for the chain after the start.
    pub registry_patience: Duration,
    /// Our own hosts that pass on other people's mail.
    pub relays: Vec<IpAddr>,
    /// Domains whose ARC seals are believed, in lower case with A-labels.
    pub arc_sealers: Vec<String>,
    /// Maximum number of DKIM signatures evaluated per mail.
    pub dkim_max_signatures: usize,
    /// File of the public suffix list; `None`: the one that is built in.
    pub public_suffix_list: Option<PathBuf>,
    /// URL of the Ethereum node; `None`: the embedded chain.
    pub ethereum_endpoint: Option<String>,
    /// JSON-RPC URLs of other nodes of the chain.
    pub ethereum_witnesses: Vec<String>,
    /// How it must be proven who is an operator; `None`: not at all.
    pub registry_proof: Option<RegistryProof>,
    /// Whether the node may be elsewhere though its URL is plain `http://`.
    pub ethereum_plain_http: bool,
    /// Where the embedded chain serves JSON-RPC; `None`: nowhere.
    pub embedded_rpc_listen: Option<SocketAddr>,
    /// URL of a node of the chain that the embedded one is anchored into; `None`: it is not.
    pub anchor_embedded_into: Option<String>,
    /// Age of the oldest block that is not anchored there at which it is.
    pub anchor_embedded_age: Duration,
    /// File with the key that signs transactions there.
    pub anchor_embedded_key_path: PathBuf,
    /// File with that key's password; `None`: it is not encrypted.
    pub anchor_embedded_key_password_path: Option<PathBuf>,
    /// Addresses of the sender registry and of the evidence ledger; `None`: this node deploys them at its first start.
    pub contracts: Option<(ContractAddress, ContractAddress)>,
    /// Blocks until a transaction is final, including its own; `None`: as the chain says.
    pub confirmations: Option<u64>,
    /// Most that a transaction may pay [wei per gas].
    pub max_fee: u64,
    /// Most batches that are sent to the chain and in no block yet.
    pub transactions_in_flight: usize,
    /// Maximum number of entries in a batch; 1 if each has a transaction.
    pub batch_max_mails: u32,
    /// Age of its oldest entry at which a batch is anchored; zero if each has a transaction.
    pub batch_max_age: Duration,
    /// Directory for evidence and keys.
    pub state_directory: PathBuf,
    /// File with the key that signs transactions.
    pub ledger_key_path: PathBuf,
    /// File with that key's password; `None`: it is not encrypted.
    pub ledger_key_password_path: Option<PathBuf>,
    /// File with the key that signs registrations and revocations; `None`: `ledger_key_path`.
    pub registrar_key_path: Option<PathBuf>,
    /// File with that key's password; `None`: it is not encrypted.
    pub registrar_key_password_path: Option<PathBuf>,
    /// File with the key for address digests.
    pub address_key_path: PathBuf,
    /// File with the token that registry requests must carry; `None`: no token is required.
    pub registry_token_path: Option<PathBuf>,
    /// Maximum number of mails verified at once.
    pub max_in_flight: usize,
}

impl Params {
    /// Reads and validates the parameters. `state_directory` is the default of the parameter of that name.
    ///
    /// # Errors
    /// The first parameter that breaks a rule.
    pub fn load(values: &Values, state_directory: &Path) -> Result<Self, ParamError> {
        let or_in = |name, folder: &Path, file: &str| {
            Ok::<_, ParamError>(optional(values, name)?.map_or_else(|| folder.join(file), PathBuf::from))
        };
        let state_directory =
            optional(values, "state_directory")?.map_or_else(|| state_directory.to_owned(), PathBuf::from);
        let is_each = values.text("evidence_mode")? == EACH;
        if optional(values, "anchor_embedded_into")?.is_none() {
            for name in ["anchor_embedded_key_path", "anchor_embedded_key_password_path"] {
                if let Some(path) = optional(values, name)? {
                    let rule = "empty unless anchor_embedded_into is given";
                    return Err(ParamError::rule(name, path, rule));
                }
            }
        }
        let params = Self {
            dns_zone_file: optional(values, "dns_zone_file")?.map(PathBuf::from),
            dns_servers: servers(values)?,
            dns_waits: Waits {
                timeout: values.seconds("dns_timeout_s")?,
                silence: values.seconds("dns_silence_s")?,
            },
            temperror_give_up: values.seconds("temperror_give_up_s")?,
            registry_patience: values.seconds("registry_patience_s")?,
            relays: relays(values)?,
            arc_sealers: arc_sealers(values)?,
            dkim_max_signatures: values.count("dkim_max_signatures")?,
            public_suffix_list: optional(values, "public_suffix_list")?.map(PathBuf::from),
            ethereum_endpoint: endpoint(values, "ethereum_endpoint")?,
            ethereum_witnesses: witnesses(values)?,
            registry_proof: match values.text("registry_proof")?.as_str() {
                FINALIZED => Some(RegistryProof::Finalized),
                WITNESS => Some(RegistryProof::Witness),
                _ => None,
            },
            ethereum_plain_http: values.bool("ethereum_plain_http")?,
            embedded_rpc_listen: values.listen("embedded_rpc_listen")?,
            anchor_embedded_into: endpoint(values, "anchor_embedded_into")?,
            anchor_embedded_age: values.seconds("anchor_embedded_age_s")?,
            anchor_embedded_key_path: or_in("anchor_embedded_key_path", &state_directory, "shared.key")?,
            anchor_embedded_key_password_path: optional(values, "anchor_embedded_key_password_path")?
                .map(PathBuf::from),
            contracts: contracts(values)?,
            confirmations: Some(values.count("confirmations")?).filter(|confirmations| *confirmations > 0),
            max_fee: values.count::<u64>("max_fee_gwei")?.saturating_mul(GWEI),
            transactions_in_flight: values.count("transactions_in_flight")?,
            batch_max_mails: if is_each { 1 } else { values.count("batch_max_mails")? },
            batch_max_age: if is_each { Duration::ZERO } else { values.seconds("batch_max_age_s")? },
            ledger_key_path: or_in("ledger_key_path", &state_directory, "ledger.key")?,
            ledger_key_password_path: optional(values, "ledger_key_password_path")?.map(PathBuf::from),
            registrar_key_path: optional(values, "registrar_key_path")?.map(PathBuf::from),
            registrar_key_password_path: optional(values, "registrar_key_password_path")?.map(PathBuf::from),
            address_key_path: or_in("address_key_path", &state_directory, "address.key")?,
            registry_token_path: match values.text("registry_token_path")?.as_str() {
                NO_TOKEN => None,
                _ => Some(or_in("registry_token_path", &state_directory, REGISTRY_TOKEN)?),
            },
            state_directory,
            max_in_flight: values.count("max_in_flight")?,
        };
        params.validate()?;
        Ok(params)
    }

    /// Checks the rules that involve more than one parameter.
    fn validate(&self) -> Result<(), ParamError> {
        if self.ledger_key_path == self.address_key_path {
            let path = self.address_key_path.display();
            return Err(ParamError::rule("address_key_path", path, "another file than ledger_key_path"));
        }
        if self.anchor_embedded_key_path == self.address_key_path {
            let path = self.address_key_path.display();
            return Err(ParamError::rule(
                "address_key_path",
                path,
                "another file than anchor_embedded_key_path",
            ));
        }
        if self.anchor_embedded_key_path == self.ledger_key_path {
            let rule = "another file than ledger_key_path, which the embedded chain is tied to";
            return Err(ParamError::rule("anchor_embedded_key_path", self.ledger_key_path.display(), rule));
        }
        if let (None, Some(path)) = (&self.registrar_key_path, &self.registrar_key_password_path) {
            let rule = "empty unless registrar_key_path is given";
            return Err(ParamError::rule("registrar_key_password_path", path.display(), rule));
        }
        if let Some(path) = &self.registrar_key_path {
            if *path == self.address_key_path {
                let rule = "another file than address_key_path";
                return Err(ParamError::rule("registrar_key_path", path.display(), rule));
            }
            if self.ethereum_endpoint.is_none() {
                let rule = "empty unless ethereum_endpoint is given: on the embedded chain one account does everything";
                return Err(ParamError::rule("registrar_key_path", path.display(), rule));
            }
        }
        let keys = [
            Some(&self.ledger_key_path),
            Some(&self.address_key_path),
            self.registrar_key_path.as_ref(),
            self.ledger_key_password_path.as_ref(),
            self.registrar_key_password_path.as_ref(),
            Some(&self.anchor_embedded_key_path),
            self.anchor_embedded_key_password_path.as_ref(),
        ];
        if let Some(path) = &self.registry_token_path
            && keys.contains(&Some(path))
        {
            // A token travels in requests, and a key must not.
            let rule = "another file than those of keys and of their passwords";
            return Err(ParamError::rule("registry_token_path", path.display(), rule));
        }
        if let (Some(_), [server, ..]) = (&self.dns_zone_file, self.dns_servers.as_slice()) {
            return Err(ParamError::rule("dns_servers", server, "empty if dns_zone_file is given"));
        }
        if let Some(address) = &self.embedded_rpc_listen {
            if !address.ip().is_loopback() {
                let rule = "a loopback address: whoever reaches it may use the chain";
                return Err(ParamError::rule("embedded_rpc_listen", address, rule));
            }
            if self.ethereum_endpoint.is_some() {
                let rule = "empty if ethereum_endpoint is given: there is no embedded chain then";
                return Err(ParamError::rule("embedded_rpc_listen", address, rule));
            }
        }
        if self.anchor_embedded_into.is_some() && self.ethereum_endpoint.is_some() {
            let rule = "empty if ethereum_endpoint is given: there is no embedded chain then";
            return Err(ParamError::rule("anchor_embedded_into", "(not shown)", rule));
        }
        if !self.ethereum_witnesses.is_empty() && self.ethereum_endpoint.is_none() {
            let rule = "empty unless ethereum_endpoint is given: the embedded chain has no other nodes";
            return Err(ParamError::rule("ethereum_witnesses", "(not shown)", rule));
        }
        let mut urls: Vec<_> = self.ethereum_endpoint.iter().chain(&self.ethereum_witnesses).collect();
        let count = urls.len();
        urls.sort_unstable();
        urls.dedup();
        if urls.len() < count {
            let rule = "other nodes than ethereum_endpoint, each named once: none is its own witness";
            return Err(ParamError::rule("ethereum_witnesses", "(not shown)", rule));
        }
        let has_witness = !self.ethereum_witnesses.is_empty() || self.ethereum_endpoint.is_none();
        if self.registry_proof == Some(RegistryProof::Witness) && !has_witness {
            let rule = "finalized or none unless ethereum_witnesses are given";
            return Err(ParamError::rule("registry_proof", WITNESS, rule));
        }
        if self.contracts.is_some() && self.ethereum_endpoint.is_none() {
            let rule = "a URL if registry_address is given; the embedded chain deploys its own contracts";
            return Err(ParamError::rule("ethereum_endpoint", "\"\"", rule));
        }
        Ok(())
    }
}

fn optional(values: &Values, name: &'static str) -> Result<Option<String>, ParamError> {
    Ok(Some(values.text(name)?).filter(|text| !text.is_empty()))
}

fn servers(values: &Values) -> Result<Vec<SocketAddr>, ParamError> {
    let parse = |text: &String| {
        let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, DNS_PORT)));
        address.map_err(|_| ParamError::rule("dns_servers", text, "IP addresses, each with :port or without"))
    };
    values.texts("dns_servers")?.iter().map(parse).collect()
}

fn arc_sealers(values: &Values) -> Result<Vec<String>, ParamError> {
    let domain = |text: &String| {
        let rule =
            || ParamError::rule("arc_trusted_sealers", text, "names of domains, such as lists.example.org");
        ascii_domain(text).filter(|domain| domain.contains('.')).ok_or_else(rule)
    };
    values.texts("arc_trusted_sealers")?.iter().map(domain).collect()
}

fn relays(values: &Values) -> Result<Vec<IpAddr>, ParamError> {
    let parse = |text: &String| text.parse().map_err(|_| ParamError::rule("relays", text, "IP addresses"));
    values.texts("relays")?.iter().map(parse).collect()
}

/// The URL may contain a password or a token, so errors do not show it.
fn endpoint(values: &Values, name: &'static str) -> Result<Option<String>, ParamError> {
    let Some(url) = optional(values, name)? else { return Ok(None) };
    check_url(name, &url)?;
    Ok(Some(url))
}

fn witnesses(values: &Values) -> Result<Vec<String>, ParamError> {
    let urls = values.texts("ethereum_witnesses")?;
    urls.iter().try_for_each(|url| check_url("ethereum_witnesses", url))?;
    Ok(urls.to_vec())
}

fn check_url(name: &'static str, url: &str) -> Result<(), ParamError> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    if host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace) {
        return Err(ParamError::rule(name, "(not shown)", "an http:// or https:// URL"));
    }
    Ok(())
}

fn contracts(values: &Values) -> Result<Option<(ContractAddress, ContractAddress)>, ParamError> {
    match (address(values, "registry_address")?, address(values, "ledger_address")?) {
        (Some(registry), Some(ledger)) if registry == ledger => Err(ParamError::rule(
            "ledger_address",
            values.text("ledger_address")?,
            "another contract than registry_address",
        )),
        (Some(registry), Some(ledger)) => Ok(Some((registry, ledger))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ParamError::rule("registry_address", "\"\"", "given if ledger_address is")),
        (Some(_), None) => Err(ParamError::rule("ledger_address", "\"\"", "given if registry_address is")),
    }
}

fn address(values: &Values, name: &'static str) -> Result<Option<ContractAddress>, ParamError> {
    let Some(text) = optional(values, name)? else { return Ok(None) };
    match from_eip55(&text) {
        Ok([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => {
            Err(ParamError::rule(name, &text, "0x and 40 hex digits, not all zero"))
        }
        Ok(address) => Ok(Some(address)),
        Err(rule) => Err(ParamError::rule(name, &text, rule.rule())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use settings::{Value, resolve};

    const ONE: &str = "0x00000000000000000000000000000000000000a1";
    const TWO: &str = "0x00000000000000000000000000000000000000a2";

    fn load(overrides: &[(&str, &str)]) -> Result<Params, ParamError> {
        let overrides = overrides.iter().map(|&(name, text)| (name.to_owned(), Value::Text(text.to_owned())));
        Params::load(&resolve(SPECS, overrides.collect::<BTreeMap<_, _>>()).unwrap(), Path::new("/state"))
    }

    fn error(overrides: &[(&str, &str)]) -> String {
        load(overrides).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_obey_their_own_rules() {
        let params = load(&[]).unwrap();
        assert_eq!(params.state_directory, Path::new("/state"));
        assert_eq!(params.ledger_key_path, Path::new("/state/ledger.key"));
        assert_eq!((params.contracts, params.ethereum_endpoint, params.dns_zone_file), (None, None, None));
        for spec in SPECS {
            let default = BTreeMap::from([(spec.name.to_owned(), spec.default.value())]);
            assert!(resolve(SPECS, default).is_ok(), "{}", spec.name);
        }
    }

    #[test]
    fn keys_follow_the_state_directory_unless_they_are_given() {
        let params = load(&[("state_directory", "/s"), ("ledger_key_path", "/keys/ledger")]).unwrap();
        assert_eq!(params.ledger_key_path, Path::new("/keys/ledger"));
        assert_eq!(params.address_key_path, Path::new("/s/address.key"));
    }

    #[test]
    fn the_token_is_in_the_state_directory_unless_it_is_elsewhere_or_turned_off() {
        let path = |value| load(&[("state_directory", "/s"), ("registry_token_path", value)]);
        assert_eq!(path("").unwrap().registry_token_path.unwrap(), Path::new("/s/registry.token"));
        assert_eq!(path("/run/token").unwrap().registry_token_path.unwrap(), Path::new("/run/token"));
        assert_eq!(path("none").unwrap().registry_token_path, None);
        assert!(path("/s/ledger.key").unwrap_err().to_string().contains("another file than those of keys"));
    }

    #[test]
    fn contracts_are_both_given_or_neither() {
        let url = ("ethereum_endpoint", "https://chain.example");
        let both = load(&[("registry_address", ONE), ("ledger_address", TWO), url]).unwrap();
        assert_eq!(both.contracts.map(|(_, ledger)| ledger[19]), Some(0xa2));
        assert!(error(&[("registry_address", ONE), url]).contains("'ledger_address' = \"\": must be given"));
        assert!(
            error(&[("registry_address", ONE), ("ledger_address", ONE), url]).contains("another contract")
        );
        assert!(error(&[("registry_address", ONE), ("ledger_address", TWO)]).contains("'ethereum_endpoint'"));
        for wrong in ["0x12", &ONE[2..], &ONE.replace("a1", "+1"), &ONE.replace("a1", "00")] {
            assert!(
                error(&[("registry_address", wrong), ("ledger_address", TWO), url]).contains("40 hex digits"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn only_this_host_reaches_the_embedded_chain() {
        let params = load(&[("embedded_rpc_listen", "[::1]:8545")]).unwrap();
        assert_eq!(params.embedded_rpc_listen, Some("[::1]:8545".parse().unwrap()));
        assert_eq!(load(&[]).unwrap().embedded_rpc_listen, None);
        for wrong in ["0.0.0.0:8545", "192.0.2.1:8545", "[::]:0"] {
            let error = error(&[("embedded_rpc_listen", wrong)]);
            assert!(
                error.contains("'embedded_rpc_listen'") && error.contains("a loopback address"),
                "{error}"
            );
        }
        assert!(error(&[("embedded_rpc_listen", "8545")]).contains("an IP address and port"));
        let both = [("embedded_rpc_listen", "127.0.0.1:0"), ("ethereum_endpoint", "https://chain.example")];
        assert!(error(&both).contains("empty if ethereum_endpoint is given"));
    }

    #[test]
    fn rejects_what_is_no_url_without_showing_it() {
        for wrong in ["ws://secret", "http://", "http:///secret", "secret", "http://a secret"] {
            let error = error(&[("ethereum_endpoint", wrong)]);
            assert!(error.contains("an http:// or https:// URL") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_an_embedded_chain_is_anchored_into_another() {
        let url = "https://chain.example";
        let params = load(&[("anchor_embedded_into", url)]).unwrap();
        assert_eq!(params.anchor_embedded_into.as_deref(), Some(url));
        let both = [("anchor_embedded_into", url), ("ethereum_endpoint", url)];
        assert!(error(&both).contains("'anchor_embedded_into' = (not shown): must be empty if"));
        assert!(error(&[("anchor_embedded_key_path", "/k")]).contains("empty unless anchor_embedded_into"));
        for other in ["ledger_key_path", "address_key_path"] {
            let one = [("anchor_embedded_into", url), ("anchor_embedded_key_path", "/k"), (other, "/k")];
            assert!(error(&one).contains("must be another file than"), "{other}");
        }
        assert!(error(&[("anchor_embedded_into", "ws://secret")]).contains("an http:// or https:// URL"));
    }

    #[test]
    fn dns_servers_are_addresses_with_a_port_or_without() {
        let load = |servers: &[&str], zone: &str| {
            let servers = servers.iter().map(|&server| server.to_owned()).collect();
            let overrides = BTreeMap::from([
                ("dns_servers".to_owned(), Value::Texts(servers)),
                ("dns_zone_file".to_owned(), Value::Text(zone.to_owned())),
            ]);
            Params::load(&resolve(SPECS, overrides).unwrap(), Path::new("/s"))
        };
        let servers = load(&["192.0.2.1", "127.0.0.1:5353", "2001:db8::1", "[::1]:53"], "").unwrap();
        let expected = ["192.0.2.1:53", "127.0.0.1:5353", "[2001:db8::1]:53", "[::1]:53"];
        assert_eq!(servers.dns_servers, expected.map(|server| server.parse().unwrap()));
        let error = load(&["dns.example"], "").unwrap_err().to_string();
        assert!(error.contains("'dns_servers' = dns.example: must be IP addresses"), "{error}");
        let error = load(&["192.0.2.1"], "/zone").unwrap_err().to_string();
        assert!(error.contains("must be empty if dns_zone_file is given"), "{error}");
    }

    #[test]
    fn rejects_one_file_for_both_keys_and_a_relay_that_is_no_address() {
        assert!(error(&[("ledger_key_path", "/k"), ("address_key_path", "/k")]).contains("another file"));
        let relays = BTreeMap::from([("relays".to_owned(), Value::Texts(vec!["mx.example".to_owned()]))]);
        let error = Params::load(&resolve(SPECS, relays).unwrap(), Path::new("/s")).unwrap_err().to_string();
        assert_eq!(error, "parameter 'relays' = mx.example: must be IP addresses");
        let sealers = |domain: &str| {
            let texts = Value::Texts(vec![domain.to_owned()]);
            let values = BTreeMap::from([("arc_trusted_sealers".to_owned(), texts)]);
            Params::load(&resolve(SPECS, values).unwrap(), Path::new("/s")).map(|params| params.arc_sealers)
        };
        assert_eq!(sealers("Lists.B\u{fc}cher.example").unwrap(), ["lists.xn--bcher-kva.example"]);
        let error = sealers("a b").unwrap_err().to_string();
        assert_eq!(
            error,
            "parameter 'arc_trusted_sealers' = a b: must be names of domains, such as lists.example.org"
        );
    }
}
