// SPDX-License-Identifier: Apache-2.0
//! The accounts whose mailboxes are read: their parameters and the rules between them. Pure.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use mail_parser::DateTime;
use settings::{
    BackOff,
    Default::{Double, Int, Text, Texts},
    Group, ParamError, Rule, Spec, Values, spec,
};

/// Parameters that all accounts share.
#[rustfmt::skip]
pub const SHARED: [Spec; 3] = [
    spec("imap.accounts", Texts(&[]), Rule::Any, "", "Names of the mailboxes to read by IMAP, like dispatch; each has the parameters imap.<name>.host and so on. posthorn mail account test NAME tries one."),
    spec("imap_connections_per_server", Int(8), Rule::IntRange(1, 1000), "", "Connections to one IMAP server at once, over all accounts. With more folders than that, none is watched: each is looked at every poll_s."),
    spec("imap_max_unsettled", Int(100_000), Rule::IntRange(1, 10_000_000), "", "While so many mails are not settled, no more are fetched; they wait on their servers."),
];

/// Those of each account.
pub const ACCOUNTS: Group = Group { names: "imap.accounts", prefix: "imap", members: MEMBERS };

#[rustfmt::skip]
const MEMBERS: &[Spec] = &[
    spec("host", Text(""), Rule::Any, "", "Name of the IMAP server, as in its certificate; it must be set."),
    spec("port", Int(0), Rule::IntRange(0, 65535), "", "Its port; 0: 993 with tls, else 143."),
    spec("security", Text("tls"), Rule::OneOf(&["tls", "starttls", "none"]), "", "tls from the first byte, or starttls after the greeting; none only for a server on this host."),
    spec("ca_path", Text(""), Rule::Any, "", "File of the certificate authorities (PEM) to trust instead of those of this host."),
    spec("user", Text(""), Rule::Any, "", "Name to log in with, often the address; it must be set."),
    spec("password_path", Text(""), Rule::Any, "", "File whose first line is the password; only its owner may have access to it."),
    spec("token_path", Text(""), Rule::Any, "", "Instead of a password, for XOAUTH2: file whose first line is the access token, read at each login."),
    spec("token_command", Texts(&[]), Rule::NotEmpty, "", "The same from a program and its arguments, run at each login: the first line that it prints."),
    spec("folders", Texts(&["INBOX"]), Rule::NotEmpty, "", "Folders to read."),
    spec("address", Text(""), Rule::Any, "", "The recipient that its mails are for, as the patterns of consumers see it; empty: user."),
    spec("first_sync", Text("new"), Rule::Any, "", "What to fetch of a folder that was never read before: new (only mails that come from now on), all, or a date like 2026-11-01 (what came then or later)."),
    spec("when_settled", Text("leave"), Rule::OneOf(&["leave", "flag", "move"]), "", "What becomes of a message on the server once its mail is settled. With leave, folders are opened read-only."),
    spec("settled_flag", Text("\\Seen"), Rule::NotEmpty, "", "The flag, for when_settled = flag."),
    spec("settled_folder", Text(""), Rule::Any, "", "The folder, for when_settled = move; it must be there."),
    spec("idle_s", Double(300.0), Rule::DoubleRange(1.0, 1740.0), "s", "IDLE is begun anew after so long, which also notices a dead connection; RFC 2177 asks for at most 29 minutes."),
    spec("poll_s", Double(60.0), Rule::DoubleRange(0.1, 86_400.0), "s", "A folder is looked at so often where it is not watched by IDLE."),
    spec("timeout_s", Double(60.0), Rule::DoubleRange(0.1, 3600.0), "s", "Time to connect, and longest silence of the server."),
    spec("retry_min_s", Double(1.0), Rule::DoubleRange(0.01, 3600.0), "s", "A server that failed is tried again after this; doubles each time, and varies by a quarter."),
    spec("retry_max_s", Double(300.0), Rule::DoubleRange(0.01, 86_400.0), "s", "Longest time between two attempts, and the time after a refused login."),
];

/// Bounds of `ImapMessage.msg`, bytes.
const ADDRESS_BYTES: usize = 320;
const FOLDER_BYTES: usize = 998;

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// From the first byte on.
    Tls,
    /// By STARTTLS.
    StartTls,
    /// Not at all: a server on this host.
    Plaintext,
}

/// What to fetch of a folder that was never read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSync {
    /// What comes from now on.
    New,
    /// Everything.
    All,
    /// What came on this day or later.
    Since(Day),
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Year.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, from 1.
    pub day: u32,
}

/// What becomes of a message once its mail is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenSettled {
    /// Nothing.
    Leave,
    /// It gets this flag.
    Flag(String),
    /// It goes to this folder.
    Move(String),
}

/// Where the password or the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A password, in a file.
    Password(PathBuf),
    /// A token, in a file.
    TokenFile(PathBuf),
    /// A token, printed by a program with these arguments.
    TokenCommand(Vec<String>),
}

/// An account, and how to read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its name among the parameters.
    pub name: String,
    /// Name of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: Security,
    /// Certificate authorities to trust; `None`: those of this host.
    pub ca_path: Option<PathBuf>,
    /// Name to log in with.
    pub user: String,
    /// What to log in with.
    pub secret: Secret,
    /// Folders to read, at least one.
    pub folders: Vec<String>,
    /// The recipient that its mails are for.
    pub address: String,
    /// What to fetch at first.
    pub first_sync: FirstSync,
    /// What becomes of its messages.
    pub when_settled: WhenSettled,
    /// Longest IDLE.
    pub idle: Duration,
    /// Interval between looks without IDLE.
    pub poll: Duration,
    /// Bound on connecting and on a silence.
    pub timeout: Duration,
    /// Delays before trying again.
    pub retry: BackOff,
}

impl Account {
    /// All accounts of the node's parameters.
    ///
    /// # Errors
    /// The first broken rule, with parameter and value.
    pub fn all(values: &Values) -> Result<Vec<Self>, ParamError> {
        let load = |(name, values)| {
            Self::load(name, values).map_err(|error| error.within(&ACCOUNTS.full_name(name, "")))
        };
        values.members(ACCOUNTS.prefix).map(load).collect()
    }

    fn load(name: &str, values: &Values) -> Result<Self, ParamError> {
        let required = |parameter| match values.text(parameter)? {
            text if text.is_empty() => Err(ParamError::rule(parameter, "\"\"", "set")),
            text => Ok(text),
        };
        let security = match values.text("security")?.as_str() {
            "tls" => Security::Tls,
            "starttls" => Security::StartTls,
            _ => Security::Plaintext,
        };
        let (host, user) = (required("host")?, required("user")?);
        let is_elsewhere = host.parse().is_ok_and(|address: IpAddr| !address.to_canonical().is_loopback());
        if security == Security::Plaintext && is_elsewhere {
            let rule =
                format!("tls or starttls for {host}, which is not this host: the password would be readable");
            return Err(ParamError::rule("security", "none", rule));
        }
        let port = match values.count("port")? {
            0 if security == Security::Tls => 993,
            0 => 143,
            port => port,
        };
        let folders = values.texts("folders")?;
        if folders.is_empty() {
            return Err(ParamError::rule("folders", "[]", "at least one folder"));
        }
        if let Some(long) = folders.iter().find(|folder| folder.len() > FOLDER_BYTES) {
            let rule = format!("names of at most {FOLDER_BYTES} bytes");
            return Err(ParamError::rule("folders", format!("{long:?}"), rule));
        }
        let is_again = |(place, folder): (usize, &String)| {
            folders.iter().take(place).any(|other| is_same_folder(other, folder))
        };
        if folders.iter().enumerate().any(is_again) {
            return Err(ParamError::rule("folders", format!("{folders:?}"), "different folders"));
        }
        let address = match values.text("address")? {
            own if own.is_empty() => user.clone(),
            own => own,
        };
        if address.len() > ADDRESS_BYTES {
            let rule = format!("at most {ADDRESS_BYTES} bytes, also if it is the user");
            return Err(ParamError::rule("address", format!("{address:?}"), rule));
        }
        let ca_path = values.text("ca_path")?;
        let retry = BackOff { min: values.seconds("retry_min_s")?, max: values.seconds("retry_max_s")? };
        if retry.min > retry.max {
            let rule = format!("at least retry_min_s = {}", retry.min.as_secs_f64());
            return Err(ParamError::rule("retry_max_s", retry.max.as_secs_f64(), rule));
        }
        Ok(Self {
            name: name.to_owned(),
            port,
            security,
            ca_path: (!ca_path.is_empty()).then(|| ca_path.into()),
            secret: secret(values)?,
            folders,
            address,
            first_sync: first_sync(values)?,
            when_settled: when_settled(values)?,
            idle: values.seconds("idle_s")?,
            poll: values.seconds("poll_s")?,
            timeout: values.seconds("timeout_s")?,
            retry,
            host,
            user,
        })
    }
}

/// INBOX is the same in any case (RFC 3501 section 5.1), and no other name.
pub(super) fn is_same_folder(one: &str, other: &str) -> bool {
    one == other || one.eq_ignore_ascii_case("INBOX") && other.eq_ignore_ascii_case("INBOX")
}

fn secret(values: &Values) -> Result<Secret, ParamError> {
    let (password, token) = (values.text("password_path")?, values.text("token_path")?);
    let command = values.texts("token_command")?;
    match (password.as_str(), token.as_str(), command.as_slice()) {
        (path, "", []) if !path.is_empty() => Ok(Secret::Password(path.into())),
        ("", path, []) if !path.is_empty() => Ok(Secret::TokenFile(path.into())),
        ("", "", [_, ..]) => Ok(Secret::TokenCommand(command)),
        ("", "", []) => {
            Err(ParamError::rule("password_path", "\"\"", "set, or token_path, or token_command"))
        }
        _ => {
            let rule = "the only one of password_path, token_path and token_command";
            Err(ParamError::rule("password_path", format!("{password:?}"), rule))
        }
    }
}

fn first_sync(values: &Values) -> Result<FirstSync, ParamError> {
    let text = values.text("first_sync")?;
    match text.as_str() {
        "new" => Ok(FirstSync::New),
        "all" => Ok(FirstSync::All),
        date => date.parse().map(FirstSync::Since).map_err(|()| {
            ParamError::rule("first_sync", format!("{date:?}"), "new, all or a date like 2026-11-01")
        }),
    }
}

fn when_settled(values: &Values) -> Result<WhenSettled, ParamError> {
    Ok(match values.text("when_settled")?.as_str() {
        "flag" => WhenSettled::Flag(values.text("settled_flag")?),
        "move" => match values.text("settled_folder")? {
            folder if folder.is_empty() => {
                return Err(ParamError::rule("settled_folder", "\"\"", "set, as when_settled = move"));
            }
            folder => WhenSettled::Move(folder),
        },
        _ => WhenSettled::Leave,
    })
}

impl Day {
    /// The day of this time, in UTC.
    pub fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let date = DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
        Self { year: date.year.into(), month: date.month.into(), day: date.day.into() }
    }
}

impl std::str::FromStr for Day {
    type Err = ();

    /// Reads a day as ISO 8601 writes it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten()
        };
        let (year, month, day) = (part(4).ok_or(())?, part(2).ok_or(())?, part(2).ok_or(())?);
        // Which months have 31 days is left to the server.
        let is_day = (1..=12).contains(&month) && (1..=31).contains(&day);
        let year = i32::try_from(year).map_err(|_| ())?;
        if is_day { Ok(Self { year, month, day }) } else { Err(()) }
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use settings::{Value, resolve_groups};

    use super::*;

    fn load(overrides: &[(&str, &str)]) -> Result<Account, ParamError> {
        let mut values: BTreeMap<_, _> =
            [("host", "mail.example"), ("user", "a@b.example"), ("password_path", "/p")]
                .iter()
                .chain(overrides)
                .map(|(name, value)| (format!("imap.dispatch.{name}"), Value::Text((*value).to_owned())))
                .collect();
        values.insert("imap.accounts".to_owned(), Value::Texts(vec!["dispatch".to_owned()]));
        let all = Account::all(&resolve_groups(&SHARED, &[ACCOUNTS], values)?)?;
        Ok(all.into_iter().next().unwrap())
    }

    #[test]
    fn three_parameters_are_enough() {
        let account = load(&[]).unwrap();
        assert_eq!((account.port, account.security), (993, Security::Tls));
        assert_eq!(account.secret, Secret::Password("/p".into()));
        assert_eq!(
            (account.address.as_str(), account.folders.as_slice()),
            ("a@b.example", &["INBOX".to_owned()][..])
        );
        assert_eq!((account.first_sync, account.when_settled), (FirstSync::New, WhenSettled::Leave));
        assert_eq!(load(&[("security", "starttls")]).unwrap().port, 143);
    }

    #[test]
    fn a_folder_is_read_once() {
        let folders = ["INBOX", "inbox"].map(str::to_owned).to_vec();
        let text = |text: &str| Value::Text(text.to_owned());
        let values = BTreeMap::from([
            ("imap.accounts".to_owned(), Value::Texts(vec!["dispatch".to_owned()])),
            ("imap.dispatch.host".to_owned(), text("mail.example")),
            ("imap.dispatch.user".to_owned(), text("a")),
            ("imap.dispatch.password_path".to_owned(), text("/p")),
            ("imap.dispatch.folders".to_owned(), Value::Texts(folders)),
        ]);
        let error = Account::all(&resolve_groups(&SHARED, &[ACCOUNTS], values).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("'imap.dispatch.folders' = [\"INBOX\", \"inbox\"]: must be different"),
            "{error}"
        );
    }

    #[test]
    fn says_which_parameter_of_which_account_is_wrong() {
        for (overrides, says) in [
            (&[("host", "")][..], "'imap.dispatch.host' = \"\": must be set"),
            (&[("security", "none"), ("host", "192.0.2.1")], "must be tls or starttls for 192.0.2.1"),
            (&[("security", "plain")], "must be one of tls, starttls, none"),
            (&[("password_path", "")], "must be set, or token_path, or token_command"),
            (&[("token_path", "/t")], "must be the only one of"),
            (&[("first_sync", "2026-13-01")], "must be new, all or a date"),
            (&[("first_sync", "yesterday")], "must be new, all or a date"),
            (&[("when_settled", "move")], "'imap.dispatch.settled_folder' = \"\": must be set"),
            (&[("user", &"u".repeat(321))], "must be at most 320 bytes, also if it is the user"),
        ] {
            let error = load(overrides).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_day_is_written_as_it_is_read() {
        let day: Day = "2026-02-09".parse().unwrap();
        assert_eq!((day.year, day.month, day.day, day.to_string().as_str()), (2026, 2, 9, "2026-02-09"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_392_000);
        assert_eq!(Day::of(now).to_string(), "2026-11-23");
        for text in
            ["", "2026", "2026-2-9", "2026-02-32", "2026-00-01", "26-02-09", "2026-02-09-1", "+026-02-09"]
        {
            assert_eq!(text.parse::<Day>(), Err(()), "{text}");
        }
    }
}
