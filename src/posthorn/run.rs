// SPDX-License-Identifier: Apache-2.0
//! Does what the arguments say: asks the graph or the chain, prints the answer, chooses the exit code.
//!
//! Results go to standard output, everything else to standard error. What a node or a mail says is escaped
//! first, except with `--raw`.

use std::{
    env,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use authenticator::{
    on_chain,
    params::{EVIDENCE_DIRECTORY, REGISTRY_TOKEN},
    shared_chain,
};
use health::Level;
use mail::{MailId, Role};
use ros::{
    builtin_interfaces::msg::Time,
    diagnostics::{Heard, Listener},
    msg,
    runtime::{default_state_directory, end, visit, with_sources},
    srv, topics,
};

use crate::{
    arguments::{Fleet, Task, TokenFile, parse},
    ask::{Failure, NODE, ask},
    chain_status,
    doctor::{self, Report, Statuses},
    mailbox, proofs, receipt,
    senders::{self, Row},
    show,
    token::Token,
};

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
                caller: caller(),
            };
            let answer = ask(&fleet, &topics::REGISTER_SENDER, &request)?;
            let what = format!("{} is registered as {}", request.address, name_of(role));
            changed(&what, answer.success, &answer.message)
        }
        Task::RevokeSender { fleet, token, address } => {
            let token = token_of(&fleet, token)?.expose();
            let request = srv::RevokeSender::Request { address, token, caller: caller() };
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
        Task::ChainStatus { fleet, is_shared } => {
            let Heard { level, message, values, .. } = ledger_status(&fleet, is_shared)?;
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
        Task::TestMailAccount { fleet, account } => {
            let answer = ask(&fleet, &topics::TEST_MAIL_ACCOUNT, &srv::TestMailAccount::Request { account })?;
            let folders =
                answer.folders.into_iter().map(|msg::MailboxFolder { name, is_read, messages, unseen }| {
                    mailbox::Folder { name, is_read, messages, unseen }
                });
            let text = mailbox::table(&folders.collect::<Vec<_>>());
            if answer.problem.is_empty() {
                return Ok(text.into_bytes());
            }
            print(results, text.as_bytes())?;
            Err(answer.problem.into())
        }
        Task::Prove { fleet, wanted } => proofs::prove(&fleet, &wanted),
        Task::Receipts { fleet, first, count } => {
            proofs::print_receipts(&fleet, (first, count), |line| print(results, line))?;
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
        Task::Verify { file, against } => proofs::verify(&receipt::read_file(&file)?, against),
        Task::Audit { directory, contract, from_block } => {
            proofs::compare(&directory.join(EVIDENCE_DIRECTORY), &contract, from_block)
        }
    }
}

/// All senders of the registry.
fn list(fleet: &Fleet, token: &str) -> Result<Vec<Row>, Failure> {
    visit(NODE, &fleet.namespace, async |mut graph| {
        let client = graph.client(&topics::LIST_SENDERS)?;
        let _running = graph.spin()?;
        let mut rows = Vec::new();
        loop {
            let first = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let request = srv::ListSenders::Request { first, token: token.to_owned(), caller: caller() };
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

/// Who runs the command, for the authenticator's log: what the operating system knows, not what the environment says.
fn caller() -> String {
    let (user, host) = (rustix::process::getuid().as_raw(), rustix::system::uname());
    format!("user {user} on {}", host.nodename().to_string_lossy()).chars().take(64).collect()
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

/// Waits for what the authenticator says of its ledger, or of the one on the shared chain.
fn ledger_status(fleet: &Fleet, is_shared: bool) -> Result<Heard, Failure> {
    let status = if is_shared { shared_chain::STATUS } else { on_chain::STATUS };
    let wanted = format!("{}: {status}", doctor::path(&fleet.namespace, "authenticator"));
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
