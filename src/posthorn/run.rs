// SPDX-License-Identifier: Apache-2.0
//! Does what the arguments say: asks the graph or the chain, prints the answer, chooses the exit code.
//!
//! Results go to standard output, everything else to standard error. What a node or a mail says is escaped
//! first, except with `--raw`.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use authenticator::params::{EVIDENCE_DIRECTORY, REGISTRY_TOKEN};
use chain::{Connection, Http, OnChain, anchors_on, verify_by_hash, verify_in_block, verify_on};
use evidence::{
    BlockProof, Identity, Receipt,
    audit::{Agreement, Batch, audit},
};
use health::Level;
use mail::{MailId, Role};
use ros::{
    builtin_interfaces::msg::Time,
    convert::{block_proof_from_ros, entry_to_ros, receipt_from_ros},
    diagnostics::{Heard, Listener},
    graph::ServiceType,
    msg,
    runtime::{default_state_directory, end, visit, with_sources},
    srv,
    topics::{self, Service},
};

use crate::{
    arguments::{Against, Contract, Fleet, Task, TokenFile, Wanted, parse},
    chain_status,
    doctor::{self, Report, Statuses},
    receipt,
    senders::{self, Row},
    show,
    token::Token,
};

/// Name of the command's node.
pub const NODE: &str = "posthorn_command";

type Failure = Box<dyn Error + Send + Sync>;

/// Runs the command and ends the process.
pub fn main() {
    end(run());
}

/// Returns the exit code.
fn run() -> u8 {
    // r2r reads the command line too, and panics if it is not UTF-8.
    if let Some(argument) = env::args_os().find(|argument| argument.to_str().is_none()) {
        eprintln!("posthorn: argument {argument:?}: must be UTF-8");
        return 2;
    }
    let task = match parse(env::args_os()) {
        Ok(task) => task,
        Err(clap) => {
            // clap knows where its output belongs: help on stdout, a mistake on stderr.
            let _ = clap.print();
            return if clap.use_stderr() { 2 } else { 0 };
        }
    };
    let performed = results().map_err(Failure::from).and_then(|mut results| {
        let output = perform(task, &mut results)?;
        Ok(print(&mut results, &output)?)
    });
    match performed {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("posthorn: {}", show::line(&with_sources(failure.as_ref())));
            1
        }
    }
}

/// Takes standard output for results alone. Whatever else in this process writes there goes to standard error from now on:
/// Fast DDS prints its errors to standard output, where they would end up in a receipt.
fn results() -> io::Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(own.into())
}

/// Prints results. A reader that has seen enough is not an error.
fn print(results: &mut File, output: &[u8]) -> io::Result<()> {
    match results.write_all(output).and_then(|()| results.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Performs the task; returns its results, or prints those that come with a failure.
fn perform(task: Task, results: &mut File) -> Result<Vec<u8>, Failure> {
    match task {
        Task::AddSender { fleet, token, address, role, valid, dkim_key } => {
            let token = token_of(&fleet, token)?.expose();
            let [valid_from, valid_until] =
                valid.map(|sec| Time { sec: sec.unwrap_or_default(), nanosec: 0 });
            let request = srv::RegisterSender::Request {
                address,
                role: role as u8,
                valid_from,
                valid_until,
                dkim_key,
                token,
            };
            let answer = ask(&fleet, &topics::REGISTER_SENDER, &request)?;
            let what = format!("{} is registered as {}", request.address, name_of(role));
            changed(&what, answer.success, &answer.message)
        }
        Task::RevokeSender { fleet, token, address } => {
            let token = token_of(&fleet, token)?.expose();
            let request = srv::RevokeSender::Request { address, token };
            let answer = ask(&fleet, &topics::REVOKE_SENDER, &request).map_err(|failure| {
                let why = with_sources(failure.as_ref());
                format!(
                    "{why}; if the authenticator got the request, the sender counts as revoked there already"
                )
            })?;
            let mut text =
                changed(&format!("{} is revoked", request.address), answer.success, &answer.message)?;
            if !answer.was_registered {
                let doubt =
                    "The registry had neither the address nor its domain: perhaps it is written otherwise.\n";
                text.extend_from_slice(doubt.as_bytes());
            }
            Ok(text)
        }
        Task::ListSenders { fleet, token } => {
            let token = token_of(&fleet, token)?.expose();
            Ok(senders::table(&list(&fleet, &token)?).into_bytes())
        }
        Task::ChainStatus { fleet } => {
            let Heard { level, message, values, .. } = ledger_status(&fleet)?;
            let text = chain_status::text(&message, &values);
            if level < Level::Error as u8 {
                return Ok(text.into_bytes());
            }
            print(results, text.as_bytes())?;
            Err("not well: see state above".into())
        }
        Task::ShowMail { fleet, id, raw } => {
            let request = srv::GetRaw::Request { mail_id: id.to_string() };
            let answer = ask(&fleet, &topics::GET_RAW, &request)?;
            if !answer.found {
                return Err(answer.message.into());
            }
            let found = MailId::of(&answer.data);
            if found != id {
                return Err(format!("mail {id}: the bytes that came are of mail {found}").into());
            }
            Ok(if raw { answer.data } else { show::mail(&answer.data).into_bytes() })
        }
        Task::Prove { fleet, wanted } => {
            let default = srv::Prove::Request { with_block: true, ..srv::Prove::Request::default() };
            let (identity, request) = match &wanted {
                Wanted::Mail(id) => {
                    (Identity::of_mail(id), srv::Prove::Request { mail_id: id.to_string(), ..default })
                }
                Wanted::Entry(entry) => {
                    (entry.identity(), srv::Prove::Request { entry: entry_to_ros(entry), ..default })
                }
            };
            let answer = ask(&fleet, &topics::PROVE, &request)?;
            if !answer.found {
                return Err(answer.message.into());
            }
            let receipt = receipt_from_ros(&answer.receipt)?;
            receipt.verify_offline()?;
            if receipt.evidence.entry.identity() != identity {
                let statement = receipt::statement(&receipt);
                return Err(format!("the receipt that came is of something else: {statement}").into());
            }
            let block = block_proof_from_ros(answer.block);
            match &block {
                Some(block) => verify_in_block(&receipt, block)?,
                None => {
                    let why = show::line(&answer.message);
                    eprintln!("posthorn: the receipt has no proof of its block: {why}");
                }
            }
            Ok(receipt::write(&receipt, block.as_ref())?.into_bytes())
        }
        Task::Receipts { fleet, first, count } => {
            print_receipts(&fleet, (first, count), results)?;
            Ok(Vec::new())
        }
        Task::Doctor { fleet, state_directory } => {
            let mut report = Report::default();
            match listen(&fleet) {
                Ok(statuses) => statuses.report(&fleet.namespace, &mut report),
                Err(failure) => report.add(Level::Error, format!("ROS: {}", with_sources(failure.as_ref()))),
            }
            // Collecting the components drops the slash that the empty name leaves at the end.
            let of_fleet = || default_state_directory(&fleet.namespace, "").components().collect();
            let directory = state_directory.unwrap_or_else(of_fleet);
            doctor::look_at_files(&directory, &mut report);
            if report.is_well() {
                Ok(report.text().into_bytes())
            } else {
                print(results, report.text().as_bytes())?;
                Err("not well: see ERROR above".into())
            }
        }
        Task::Verify { file, against } => verify(&receipt::read_file(&file)?, against),
        Task::Audit { directory, contract, from_block } => {
            let Contract { endpoint, address } = contract;
            let (next, anchors) =
                on_chain(&endpoint, async |chain| anchors_on(chain, address, from_block).await)?;
            let batch = |OnChain { first, count, root, .. }| Batch { first, count, root };
            let batches: Vec<_> = anchors.into_iter().map(batch).collect();
            let directory = directory.join(EVIDENCE_DIRECTORY);
            Ok(agreement(&audit(&directory, next, &batches)?, batches.len()).into_bytes())
        }
    }
}

/// Report of an audit that found no difference.
fn agreement(&Agreement { leaves, mails, anchored, torn_bytes }: &Agreement, batches: usize) -> String {
    let others = leaves.saturating_sub(mails);
    let waiting = leaves.saturating_sub(anchored);
    let torn = match torn_bytes {
        0 => String::new(),
        bytes => {
            format!("The last {bytes} bytes of the log are no complete record: being written, or torn.\n")
        }
    };
    format!(
        "Log and chain agree. Leaves in the log: {leaves}, of mails: {mails}, of other kinds: {others}; on chain: \
         {anchored}, in batches: {batches}; waiting to be anchored: {waiting}.\n{torn}"
    )
}

/// Connects to `endpoint` and runs `errand`.
fn on_chain<T>(
    endpoint: &str,
    errand: impl AsyncFnOnce(Connection) -> Result<T, chain::LedgerError>,
) -> Result<T, Failure> {
    let node = Connection::Http(Http::new(endpoint)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(errand(node))?)
}

fn verify((receipt, block): &(Receipt, Option<BlockProof>), against: Against) -> Result<Vec<u8>, Failure> {
    receipt.verify_offline()?;
    let statement = receipt::statement(receipt);
    let text = match against {
        Against::Itself => {
            block.as_ref().map_or(Ok(()), |block| verify_in_block(receipt, block))?;
            let rest = "Whether the chain says so is not verified: that needs --contract, and --endpoint or --block-hash.";
            format!("The receipt says, and its proof holds: {statement}.\n{rest}\n")
        }
        Against::Chain(Contract { endpoint, address }) => {
            on_chain(&endpoint, async |chain| verify_on(chain, address, receipt, block.as_ref()).await)?;
            format!("Proven: {statement}.\n")
        }
        Against::Block { address, hash } => {
            let block = block.as_ref().ok_or("the receipt has no proof of its block, see posthorn prove")?;
            verify_by_hash(hash, address, receipt, block)?;
            let block = hex::encode(hash);
            format!("Proven, if block 0x{block} is in the chain: {statement}.\n")
        }
    };
    Ok(text.into_bytes())
}

/// Prints at most `count` receipts from index `first` on, each in a line.
fn print_receipts(fleet: &Fleet, (first, count): (u64, u64), results: &mut File) -> Result<(), Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(&topics::PROVE_RANGE)?;
        let _running = graph.spin()?;
        let (mut next, end) = (first, first.saturating_add(count));
        while next < end {
            let answer =
                client.find_and_ask(&srv::ProveRange::Request { first: next }, fleet.timeout).await?;
            if !answer.success {
                return Err(answer.message.into());
            }
            if answer.receipts.is_empty() {
                break;
            }
            for message in &answer.receipts {
                let receipt = receipt_from_ros(message)?;
                receipt.verify_offline()?;
                if receipt.evidence.index != next {
                    let index = receipt.evidence.index;
                    return Err(format!("the receipt that came is of entry {index}, not of {next}").into());
                }
                if next < end {
                    print(results, receipt::write(&receipt, None)?.as_bytes())?;
                    next += 1;
                }
            }
        }
        Ok(())
    })
}

/// All senders of the registry.
fn list(fleet: &Fleet, token: &str) -> Result<Vec<Row>, Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(&topics::LIST_SENDERS)?;
        let _running = graph.spin()?;
        let mut rows = Vec::new();
        loop {
            let first = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let request = srv::ListSenders::Request { first, token: token.to_owned() };
            let answer = client.find_and_ask(&request, fleet.timeout).await?;
            if !answer.success {
                return Err(answer.message.into());
            }
            let is_last_page = answer.senders.is_empty();
            rows.extend(answer.senders.into_iter().map(row));
            if is_last_page || rows.len() >= usize::try_from(answer.count).unwrap_or(usize::MAX) {
                return Ok(rows);
            }
        }
    })
}

fn row(sender: msg::RegisteredSender) -> Row {
    let msg::RegisteredSender { address, digest, registry, role, dkim_key, .. } = sender;
    let [registered_at, revoked_at, valid_from, valid_until] =
        [sender.registered_at, sender.revoked_at, sender.valid_from, sender.valid_until]
            .map(|time| time.sec.into());
    Row { address, digest, registry, role, registered_at, revoked_at, valid_from, valid_until, dkim_key }
}

fn token_of(fleet: &Fleet, file: TokenFile) -> Result<Token, Failure> {
    let path = match file {
        TokenFile::None => return Ok(Token::none()),
        TokenFile::At(path) => path,
        TokenFile::Default => default_state_directory(&fleet.namespace, "authenticator").join(REGISTRY_TOKEN),
    };
    Token::read(&path).map_err(|error| {
        let words = with_sources(&error);
        format!("{words}; --token-file names the authenticator's registry_token_path").into()
    })
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::None => "nothing",
        Role::Observer => "observer",
        Role::Operator => "operator",
    }
}

/// The last line of a change to the registry, or why there was none.
fn changed(what: &str, success: bool, message: &str) -> Result<Vec<u8>, Failure> {
    if success {
        Ok(format!("{what}, transaction {}\n", show::line(message)).into_bytes())
    } else {
        Err(message.into())
    }
}

/// Listens until every node has said how it is, or for the time limit.
fn listen(fleet: &Fleet) -> Result<Statuses, Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let mut listener = Listener::new(&mut graph)?;
        let _running = graph.spin()?;
        let mut statuses = Statuses::default();
        let complete = async {
            while !statuses.are_complete(&fleet.namespace) {
                let Some(heard) = listener.next().await else { break };
                heard
                    .into_iter()
                    .for_each(|Heard { name, level, message, .. }| statuses.hear(name, level, message));
            }
        };
        // Who has not been heard by then is in the report.
        let _ = tokio::time::timeout(fleet.timeout, complete).await;
        Ok(statuses)
    })
}

/// Waits for what the authenticator says of its ledger.
fn ledger_status(fleet: &Fleet) -> Result<Heard, Failure> {
    let wanted = format!("{}: ledger", doctor::path(&fleet.namespace, "authenticator"));
    visit(NODE, &fleet.namespace, async |mut graph| {
        let mut listener = Listener::new(&mut graph)?;
        let _running = graph.spin()?;
        let heard = async {
            loop {
                let statuses = listener.next().await?;
                if let Some(status) = statuses.into_iter().find(|status| status.name == wanted) {
                    return Some(status);
                }
            }
        };
        match tokio::time::timeout(fleet.timeout, heard).await {
            Ok(Some(status)) => Ok(status),
            _ => {
                let seconds = fleet.timeout.as_secs_f64();
                Err(format!("nothing heard of '{wanted}' on /diagnostics within {seconds} s").into())
            }
        }
    })
}

/// Joins the graph, asks once and leaves it.
fn ask<T: ServiceType + 'static>(
    fleet: &Fleet,
    service: &Service<T>,
    request: &T::Request,
) -> Result<T::Response, Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(service)?;
        let _running = graph.spin()?;
        let answer = client.find_and_ask(request, fleet.timeout).await;
        answer.map_err(|error| {
            let (words, seconds) = (with_sources(&error), fleet.timeout.as_secs_f64());
            format!("{words} (namespace {}, --timeout {seconds} s)", fleet.namespace).into()
        })
    })
}
