// SPDX-License-Identifier: Apache-2.0
//! Reads the command line. Pure.
//!
//! A [`Task`] satisfies every rule that can be checked without asking anybody.

mod value;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, error::ErrorKind, value_parser};
use evidence::Entry;
use mail::{MailId, Role};

use value::{
    bare_address, block_hash, contract, digest, dkim_key, kind, mail_id, moment, namespace, seconds, source,
};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Register a sender, or change its role.
    AddSender {
        /// The fleet.
        fleet: Fleet,
        /// Where the registry's token is.
        token: TokenFile,
        /// Address of the sender.
        address: String,
        /// What the sender may do from now on.
        role: Role,
        /// From when on, and from when on no more [s since 1970].
        valid: [Option<i32>; 2],
        /// The public DKIM key that must sign its mails, base64; empty: any.
        dkim_key: String,
    },
    /// List the senders.
    ListSenders {
        /// The fleet.
        fleet: Fleet,
        /// Where the registry's token is.
        token: TokenFile,
    },
    /// Revoke a sender.
    RevokeSender {
        /// The fleet.
        fleet: Fleet,
        /// Where the registry's token is.
        token: TokenFile,
        /// Address of the sender.
        address: String,
    },
    /// Show how the ledger and its chain stand.
    ChainStatus {
        /// The fleet.
        fleet: Fleet,
        /// That of the shared chain instead, into which the embedded one is anchored.
        is_shared: bool,
    },
    /// Show a mail that the journal still keeps.
    ShowMail {
        /// The fleet.
        fleet: Fleet,
        /// The mail.
        id: MailId,
        /// Write the bytes as received.
        raw: bool,
    },
    /// Try a mailbox that mail_bridge is to read.
    TestMailAccount {
        /// The fleet.
        fleet: Fleet,
        /// Name of the account.
        account: String,
    },
    /// Print the receipt of an entry on the evidence ledger.
    Prove {
        /// The fleet.
        fleet: Fleet,
        /// The entry.
        wanted: Wanted,
    },
    /// Print the receipts of entries that follow each other on the evidence ledger.
    Receipts {
        /// The fleet.
        fleet: Fleet,
        /// Index of the first entry.
        first: u64,
        /// How many at most.
        count: u64,
    },
    /// Check whether a posthorn is well.
    Doctor {
        /// The fleet.
        fleet: Fleet,
        /// Holds a directory for each node; `None`: the default one of this user.
        state_directory: Option<PathBuf>,
    },
    /// Verify a receipt.
    Verify {
        /// The receipt, as [`Task::Prove`] prints it.
        file: PathBuf,
        /// What to verify it against.
        against: Against,
    },
    /// Compare the evidence on disk with the chain.
    Audit {
        /// The authenticator's state directory.
        directory: PathBuf,
        /// The contract that must have it.
        contract: Contract,
        /// Block from which to read.
        from_block: u64,
    },
}

/// Whose receipt is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That of the verdict on a mail.
    Mail(MailId),
    /// That of an entry of another kind.
    Entry(Entry),
    /// That of this block of the embedded chain, on the shared chain.
    Block(u64),
}

/// What a receipt is verified against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// Itself: only what can be checked without a contract.
    Itself,
    /// A contract on a chain.
    Chain(Contract),
    /// A contract, and the block that the transaction must be in.
    Block {
        /// Address of the contract. It must not come from the receipt.
        address: [u8; 20],
        /// Hash of the block. Neither must this.
        hash: [u8; 32],
    },
}

/// An evidence ledger on a chain.
#[derive(Clone, PartialEq, Eq)]
pub struct Contract {
    /// JSON-RPC URL of an Ethereum node. It may contain a provider's key, so it is never printed.
    pub endpoint: String,
    /// Its address. It must not come from the receipt: anybody can deploy a contract.
    pub address: [u8; 20],
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contract").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Which nodes to ask, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Namespace of the nodes, with a leading slash.
    pub namespace: String,
    /// How long to wait for a node, its answer included.
    pub timeout: Duration,
}

/// Where the registry's token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFile {
    /// Where the authenticator of this namespace keeps it by default.
    Default,
    /// In this file.
    At(PathBuf),
    /// The authenticator asks for none (its `registry_token_path` is `none`).
    None,
}

const ACCOUNT: &str = "ACCOUNT";
const ADDRESS: &str = "ADDRESS";
const BLOCK_HASH: &str = "block-hash";
const CONTRACT: &str = "contract";
const COUNT: &str = "count";
const ENDPOINT: &str = "endpoint";
const DIGEST: &str = "digest";
const DKIM_KEY: &str = "dkim-key";
const DIRECTORY: &str = "DIR";
const FILE: &str = "FILE";
const FIRST: &str = "first";
const FROM_BLOCK: &str = "from-block";
const ID: &str = "ID";
const KIND: &str = "kind";
const NAMESPACE: &str = "namespace";
const NUMBER: &str = "NUMBER";
const RAW: &str = "raw";
const SHARED: &str = "shared";
const STATE_DIRECTORY: &str = "state-directory";
const ROLE: &str = "role";
const SOURCE: &str = "source";
const TIMEOUT: &str = "timeout";
const TOKEN_FILE: &str = "token-file";
const VALID_FROM: &str = "valid-from";
const VALID_UNTIL: &str = "valid-until";
const WITNESS: &str = "witness";

/// Reads `arguments`, the first of which is the program's name.
///
/// # Errors
/// clap's, which also is how `--help` and `--version` end.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    // clap requires a subcommand and each argument that is asked for here.
    task(&matches).ok_or_else(|| command().error(ErrorKind::MissingSubcommand, "a subcommand is missing"))
}

/// The command line, for `--help`.
pub fn command() -> Command {
    Command::new("posthorn")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Senders, mails, evidence and health of a fleet")
        .after_help(
            "Exit codes: 0 done; 1 refused, not found, not proven, or no answer; 2 invalid arguments.\n\
             posthorn talks to the nodes of its ROS_DOMAIN_ID. Other users of this host can read a command line.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("sender")
                .about("Registers, revokes and lists senders in the registry contract")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    asking_command("add", "Registers a sender, or changes what it is registered for")
                        .arg(address())
                        .arg(
                            Arg::new(ROLE)
                                .long(ROLE)
                                .value_name("ROLE")
                                .required(true)
                                .value_parser(["observer", "operator"])
                                .help("observer: may ask; operator: may ask and order"),
                        )
                        .arg(moment_of(VALID_FROM).help("Time from which on the registration counts [default: at once]"))
                        .arg(moment_of(VALID_UNTIL).help("Time from which on it counts no more [default: never]"))
                        .arg(Arg::new(DKIM_KEY).long(DKIM_KEY).value_name("BASE64").value_parser(dkim_key).help(
                            "Public DKIM key that must sign its mails, the tag p= of the DNS record [default: any that the DNS has]",
                        ))
                        .arg(token_file())
                        .mut_arg(TIMEOUT, confirmed),
                )
                .subcommand(
                    asking_command("revoke", "Revokes a sender")
                        .arg(address())
                        .arg(token_file())
                        .mut_arg(TIMEOUT, confirmed),
                )
                .subcommand(
                    asking_command("list", "Lists all senders that the registry ever had").arg(token_file()),
                ),
        )
        .subcommand(
            Command::new("chain")
                .about("Shows how the evidence ledger and its chain stand, and proves blocks of an embedded chain")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(asking_command(
                    "status",
                    "Shows head, finality, what waits, fees, balances and the cost of an entry; exit code 1 if the chain cannot be used",
                )
                .arg(Arg::new(SHARED).long(SHARED).action(ArgAction::SetTrue).help(
                    "That of the shared chain, into which the embedded one is anchored",
                )))
                .subcommand(
                    asking_command(
                        "prove",
                        "Prints the receipt of a block of the embedded chain on the shared chain, as JSON to keep",
                    )
                    .arg(
                        Arg::new(NUMBER)
                            .required(true)
                            .value_parser(value_parser!(u64))
                            .help("Number of the block, block_number in the receipt of an entry"),
                    ),
                ),
        )
        .subcommand(
            Command::new("mail")
                .about("Shows mails that the journal still keeps, and tries mailboxes")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(asking_command("show", "Shows a mail").arg(id()).arg(
                    Arg::new(RAW).long(RAW).action(ArgAction::SetTrue).help(
                        "Write the bytes as received; on a terminal, a hostile mail can do anything with it",
                    ),
                ))
                .subcommand(
                    Command::new("account")
                        .about("Tries the mailboxes that mail_bridge reads by IMAP")
                        .subcommand_required(true)
                        .arg_required_else_help(true)
                        .subcommand(
                            asking_command(
                                "test",
                                "Has mail_bridge connect, log in and count, and says what is wrong; changes nothing",
                            )
                            .arg(
                                Arg::new(ACCOUNT)
                                    .required(true)
                                    .help("Name of the account, as in the parameter imap.accounts"),
                            ),
                        ),
                ),
        )
        .subcommand(
            asking_command(
                "prove",
                "Prints the receipt of a mail, an order or another entry on the evidence ledger, as JSON to keep",
            )
            .arg(id().help("Id of the mail, or subject of an entry of another kind (an order's command_id), 64 hex digits"))
            .arg(part_of_entry(KIND, "KIND").requires(SOURCE).value_parser(kind).help("Kind of the entry, such as order [default: the verdict on a mail]"))
            .arg(part_of_entry(SOURCE, "NODE").requires(DIGEST).value_parser(source).help("Node that stated the entry, such as /fleet/chatbot"))
            .arg(part_of_entry(DIGEST, "HEX").requires(KIND).value_parser(digest).help("SHA-256 of its facts, 64 hex digits")),
        )
        .subcommand(
            asking_command(
                "receipts",
                "Prints the receipts of entries that follow each other on the evidence ledger, each a line of JSON",
            )
            .arg(
                Arg::new(FIRST)
                    .long(FIRST)
                    .value_name("INDEX")
                    .default_value("0")
                    .value_parser(value_parser!(u64))
                    .help("Index of the first entry"),
            )
            .arg(
                Arg::new(COUNT)
                    .long(COUNT)
                    .value_name("NUMBER")
                    .value_parser(value_parser!(u64))
                    .help("How many at most [default: all that are anchored]"),
            ),
        )
        .subcommand(
            asking_command("doctor", "Checks nodes, their statuses, free disk and secrets; exit code 1 if a check fails")
                .arg(
                    Arg::new(STATE_DIRECTORY)
                        .long(STATE_DIRECTORY)
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("Directory that holds the nodes' state directories [default: posthorn/NAMESPACE below the user's state folder]"),
                )
                .mut_arg(TIMEOUT, |timeout| {
                    timeout.default_value("10").help("How long to listen for nodes that have not been heard")
                }),
        )
        .subcommand(
            Command::new("verify")
                .about("Verifies a receipt that `posthorn prove` printed; needs no running node")
                .arg(
                    Arg::new(FILE)
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("File of the receipt"),
                )
                .arg(endpoint().requires(CONTRACT).help(
                    "JSON-RPC URL of an Ethereum node: verify against its chain, too [default: only the receipt itself]",
                ))
                .arg(
                    Arg::new(BLOCK_HASH)
                        .long(BLOCK_HASH)
                        .value_name("HASH")
                        .value_parser(block_hash)
                        .requires(CONTRACT)
                        .help("Hash of the transaction's block, from somebody you trust: verify against it, without a node"),
                )
                .group(ArgGroup::new(WITNESS).args([ENDPOINT, BLOCK_HASH]))
                .arg(contract_address().requires(WITNESS)),
        )
        .subcommand(
            Command::new("audit")
                .about("Compares an evidence log with all that the chain has of it; changes nothing, needs no running node")
                .arg(
                    Arg::new(DIRECTORY)
                        .required(true)
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("The authenticator's state directory, or a copy of it"),
                )
                .arg(endpoint().required(true).help("JSON-RPC URL of an Ethereum node"))
                .arg(contract_address().required(true))
                .arg(
                    Arg::new(FROM_BLOCK)
                        .long(FROM_BLOCK)
                        .value_name("NUMBER")
                        .default_value("0")
                        .value_parser(value_parser!(u64))
                        .help("Block to begin with; the one in which the contract was deployed saves time"),
                ),
        )
}

/// A subcommand that asks the graph.
fn asking_command(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(
            Arg::new(NAMESPACE)
                .long(NAMESPACE)
                .value_name("NAMESPACE")
                .default_value("/")
                .value_parser(namespace)
                .help("Namespace of the nodes"),
        )
        .arg(
            Arg::new(TIMEOUT)
                .long(TIMEOUT)
                .value_name("SECONDS")
                .default_value("30")
                .value_parser(seconds)
                .help("How long to wait for a node, its answer included"),
        )
}

/// The time limit of a change to the registry: the authenticator answers once the chain has confirmed it.
fn confirmed(timeout: Arg) -> Arg {
    timeout.default_value("310").help("How long to wait; after that the change may still be made")
}

fn endpoint() -> Arg {
    Arg::new(ENDPOINT).long(ENDPOINT).value_name("URL")
}

fn contract_address() -> Arg {
    Arg::new(CONTRACT)
        .long(CONTRACT)
        .value_name("ADDRESS")
        .value_parser(contract)
        .help("Address of the fleet's evidence ledger, from somebody you trust")
}

fn address() -> Arg {
    Arg::new(ADDRESS).required(true).value_parser(bare_address).help(
        "Address as in the From header, or @domain for every address of it that has no entry of its own",
    )
}

fn id() -> Arg {
    Arg::new(ID).required(true).value_parser(mail_id).help("Id of the mail, 64 hex digits")
}

fn part_of_entry(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn moment_of(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("TIME").value_parser(moment)
}

fn token_file() -> Arg {
    Arg::new(TOKEN_FILE).long(TOKEN_FILE).value_name("FILE").value_parser(value_parser!(PathBuf)).help(
        "File of the registry's token; none: send no token [default: registry.token in the authenticator's default state directory]",
    )
}

fn task(matches: &ArgMatches) -> Option<Task> {
    match matches.subcommand()? {
        ("sender", matches) => match matches.subcommand()? {
            ("add", matches) => Some(Task::AddSender {
                fleet: fleet(matches)?,
                token: token(matches),
                address: taken(matches, ADDRESS)?,
                role: match taken::<String>(matches, ROLE)?.as_str() {
                    "operator" => Role::Operator,
                    _ => Role::Observer,
                },
                valid: [taken(matches, VALID_FROM), taken(matches, VALID_UNTIL)],
                dkim_key: taken(matches, DKIM_KEY).unwrap_or_default(),
            }),
            ("list", matches) => Some(Task::ListSenders { fleet: fleet(matches)?, token: token(matches) }),
            (_, matches) => Some(Task::RevokeSender {
                fleet: fleet(matches)?,
                token: token(matches),
                address: taken(matches, ADDRESS)?,
            }),
        },
        ("chain", matches) => {
            let (command, matches) = matches.subcommand()?;
            let fleet = fleet(matches)?;
            Some(match command {
                "prove" => Task::Prove { fleet, wanted: Wanted::Block(taken(matches, NUMBER)?) },
                _ => Task::ChainStatus { fleet, is_shared: matches.get_flag(SHARED) },
            })
        }
        ("mail", matches) => {
            let (command, matches) = matches.subcommand()?;
            if command == "account" {
                let (_, matches) = matches.subcommand()?;
                return Some(Task::TestMailAccount {
                    fleet: fleet(matches)?,
                    account: taken(matches, ACCOUNT)?,
                });
            }
            Some(Task::ShowMail {
                fleet: fleet(matches)?,
                id: taken(matches, ID)?,
                raw: matches.get_flag(RAW),
            })
        }
        ("doctor", matches) => {
            Some(Task::Doctor { fleet: fleet(matches)?, state_directory: taken(matches, STATE_DIRECTORY) })
        }
        ("verify", matches) => Some(Task::Verify { file: taken(matches, FILE)?, against: against(matches)? }),
        ("audit", matches) => Some(Task::Audit {
            directory: taken(matches, DIRECTORY)?,
            contract: contract_of(matches)?,
            from_block: taken(matches, FROM_BLOCK)?,
        }),
        ("receipts", matches) => Some(Task::Receipts {
            fleet: fleet(matches)?,
            first: taken(matches, FIRST)?,
            count: taken(matches, COUNT).unwrap_or(u64::MAX),
        }),
        (_, matches) => Some(Task::Prove { fleet: fleet(matches)?, wanted: wanted(matches)? }),
    }
}

fn fleet(matches: &ArgMatches) -> Option<Fleet> {
    Some(Fleet { namespace: taken(matches, NAMESPACE)?, timeout: taken(matches, TIMEOUT)? })
}

/// clap requires all of kind, source and digest, or none.
fn wanted(matches: &ArgMatches) -> Option<Wanted> {
    let id: MailId = taken(matches, ID)?;
    let Some(kind) = taken(matches, KIND) else { return Some(Wanted::Mail(id)) };
    let (source, digest) = (taken(matches, SOURCE)?, taken(matches, DIGEST)?);
    Entry::new(kind, source, *id.as_bytes(), digest).ok().map(Wanted::Entry)
}

/// clap requires the contract's address if there is something to verify against.
fn against(matches: &ArgMatches) -> Option<Against> {
    match (taken(matches, BLOCK_HASH), contract_of(matches)) {
        (Some(hash), _) => Some(Against::Block { address: taken(matches, CONTRACT)?, hash }),
        (None, Some(contract)) => Some(Against::Chain(contract)),
        (None, None) => Some(Against::Itself),
    }
}

fn contract_of(matches: &ArgMatches) -> Option<Contract> {
    Some(Contract { endpoint: taken(matches, ENDPOINT)?, address: taken(matches, CONTRACT)? })
}

fn token(matches: &ArgMatches) -> TokenFile {
    match taken::<PathBuf>(matches, TOKEN_FILE) {
        None => TokenFile::Default,
        Some(path) if path.as_os_str() == authenticator::params::NO_TOKEN => TokenFile::None,
        Some(path) => TokenFile::At(path),
    }
}

fn taken<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.get_one::<T>(name).cloned()
}

#[cfg(test)]
mod tests;
