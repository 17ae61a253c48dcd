// SPDX-License-Identifier: Apache-2.0
//! Tries an account: connects, logs in and counts, and changes nothing.

use imap::{FolderCounts, Session};

use super::{
    Mailboxes,
    accounts::{Account, is_same_folder},
    secret::credentials,
};

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// What is wrong, in words; empty if the account can be read.
    pub problem: String,
    /// The folders on the server.
    pub folders: Vec<TriedFolder>,
}

/// A folder on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedFolder {
    /// Its name.
    pub name: String,
    /// Whether it is to be read.
    pub is_read: bool,
    /// How many messages it has.
    pub counts: FolderCounts,
}

/// Most folders that are counted; each is a question to the server.
const FOLDERS: usize = 200;

/// Tries the account of this name.
pub(crate) async fn trial(mailboxes: &Mailboxes, name: &str) -> Trial {
    let Some((account, server)) = mailboxes.iter().find(|(account, _)| account.name == name) else {
        let names: Vec<_> = mailboxes.iter().map(|(account, _)| account.name.as_str()).collect();
        let problem = match names.as_slice() {
            [] => "mail_bridge reads no mailboxes: imap.accounts is empty".to_owned(),
            names => format!("no account {name:?}: imap.accounts has {}", names.join(", ")),
        };
        return Trial { problem, ..Trial::default() };
    };
    let opened = match credentials(&account.secret).await {
        Ok(credentials) => {
            Session::open(server, &account.user, &credentials).await.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(problem) => return Trial { problem, ..Trial::default() },
    };
    let mut trial = Trial::default();
    if let Err(error) = look(&mut session, account, &mut trial).await {
        trial.problem = error.to_string();
    }
    session.close().await;
    trial
}

async fn look(session: &mut Session, account: &Account, trial: &mut Trial) -> Result<(), imap::ImapError> {
    let folders = session.folders().await?;
    for folder in folders.into_iter().filter(|folder| folder.has_messages).take(FOLDERS) {
        let counts = session.count(&folder.name).await?;
        let is_read = account.folders.iter().any(|name| is_same_folder(name, &folder.name));
        trial.folders.push(TriedFolder { name: folder.name, is_read, counts });
    }
    let missing =
        account.folders.iter().find(|name| !trial.folders.iter().any(|one| is_same_folder(name, &one.name)));
    if let Some(missing) = missing {
        trial.problem =
            format!("there is no folder {missing:?} on the server (imap.{}.folders)", account.name);
    }
    Ok(())
}
