// SPDX-License-Identifier: Apache-2.0
//! The commands that reading a mailbox takes, but for FETCH and IDLE.

use std::{num::NonZeroU32, ops::RangeInclusive};

use io_imap::{
    codec::CommandCodec,
    rfc3501::{
        examine::{ImapMailboxExamine, ImapMailboxExamineOptions},
        list::ImapMailboxList,
        select::{ImapMailboxSelect, ImapMailboxSelectOptions},
        status::ImapMailboxStatus,
        store::{ImapMessageStore, ImapMessageStoreOptions},
    },
    rfc6851::r#move::{ImapMessageMove, ImapMessageMoveOptions},
    send::ImapSend,
    types::{
        IntoStatic,
        command::{Command, CommandBody, SelectParameter},
        core::{TagGenerator, Vec1},
        datetime::NaiveDate,
        error::ValidationError,
        flag::{Flag, FlagNameAttribute, StoreType},
        mailbox::{ListMailbox, Mailbox},
        response::{Data, StatusKind, Tagged},
        search::SearchKey,
        sequence::SequenceSet,
        status::{StatusDataItem, StatusDataItemName},
    },
};

use super::{
    Session,
    account::{Access, Extension, Folder, FolderCounts, Opened},
    error::{ImapError, clipped},
};

/// Bound on the answer to a search, bytes: the numbers of 3 million messages.
pub(crate) const SEARCH_BYTES: usize = 32 * 1024 * 1024;

impl Session {
    /// Lists all folders.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn folders(&mut self) -> Result<Vec<Folder>, ImapError> {
        let all = ListMailbox::try_from("*").map_err(|error| ImapError::Protocol(error.to_string()))?;
        let listed = self.run(ImapMailboxList::new(folder("")?, all)).await?;
        let folder = |(name, _, attributes): (_, _, Vec<FlagNameAttribute<'_>>)| Folder {
            name: folder_name(&name),
            has_messages: !attributes.contains(&FlagNameAttribute::Noselect),
        };
        Ok(listed.into_iter().map(folder).collect())
    }

    /// Counts the messages of a folder without opening it.
    ///
    /// # Errors
    /// If there is no such folder or the server does not answer as it should.
    pub async fn count(&mut self, name: &str) -> Result<FolderCounts, ImapError> {
        const ITEMS: [StatusDataItemName; 2] = [StatusDataItemName::Messages, StatusDataItemName::Unseen];
        let items = self.run(ImapMailboxStatus::new(folder(name)?, ITEMS.to_vec())).await?;
        let mut counts = FolderCounts::default();
        for item in items {
            match item {
                StatusDataItem::Messages(messages) => counts.messages = messages,
                StatusDataItem::Unseen(unseen) => counts.unseen = unseen,
                _ => {}
            }
        }
        Ok(counts)
    }

    /// Opens a folder; the commands after it are about its messages. Opening it again asks what is new.
    ///
    /// # Errors
    /// If there is no such folder, it cannot be opened, or its messages have no lasting UIDs.
    pub async fn open_folder(&mut self, name: &str, access: Access) -> Result<Opened, ImapError> {
        let counts = self.has(Extension::CondStore).then_some(SelectParameter::CondStore);
        let (name, parameters) = (folder(name)?, Vec::from_iter(counts));
        let opened = match access {
            Access::Read => {
                self.run(ImapMailboxExamine::new(name, ImapMailboxExamineOptions { parameters })).await?
            }
            Access::Write => {
                self.run(ImapMailboxSelect::new(name, ImapMailboxSelectOptions { parameters })).await?
            }
        };
        let Some(uid_validity) = opened.uid_validity else {
            return Err(ImapError::Protocol("the folder has no UIDVALIDITY".to_owned()));
        };
        Ok(Opened {
            messages: opened.exists.unwrap_or(0),
            uid_validity: uid_validity.get(),
            uid_next: opened.uid_next.map(NonZeroU32::get),
            changes: opened.highest_mod_seq,
        })
    }

    /// UIDs of messages from `first` on, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_from(&mut self, first: u32) -> Result<Vec<u32>, ImapError> {
        let mut found = self.search(vec![SearchKey::SequenceSet(uids(first..=u32::MAX)?)]).await?;
        // "first:*" has the last message even if its UID is lower (RFC 3501 section 6.4.8).
        found.retain(|uid| *uid >= first);
        Ok(found)
    }

    /// UIDs of messages from `first` on that are larger than this, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_larger(&mut self, first: u32, bytes: usize) -> Result<Vec<u32>, ImapError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.search(vec![SearchKey::SequenceSet(uids(first..=u32::MAX)?), SearchKey::Larger(bytes)]).await
    }

    /// UIDs of messages that arrived on this day (of the server's clock) or later, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_since(&mut self, year: i32, month: u32, day: u32) -> Result<Vec<u32>, ImapError> {
        let date =
            chrono::NaiveDate::from_ymd_opt(year, month, day).and_then(|date| NaiveDate::try_from(date).ok());
        let Some(date) = date else {
            return Err(ImapError::Protocol(format!("{year}-{month}-{day} is no date")));
        };
        self.search(vec![SearchKey::Since(date)]).await
    }

    /// UIDs of messages up to `last` that do not have this flag, ascending.
    ///
    /// # Errors
    /// If the server does not answer as it should.
    pub async fn uids_without(&mut self, flag: &str, last: u32) -> Result<Vec<u32>, ImapError> {
        let without = match parsed_flag(flag)? {
            Flag::Answered => SearchKey::Unanswered,
            Flag::Deleted => SearchKey::Undeleted,
            Flag::Draft => SearchKey::Undraft,
            Flag::Flagged => SearchKey::Unflagged,
            Flag::Seen => SearchKey::Unseen,
            Flag::Keyword(keyword) => SearchKey::Unkeyword(keyword),
            Flag::Extension(_) => return Err(no_flag(flag, "a flag that can be searched for")),
        };
        self.search(vec![SearchKey::SequenceSet(uids(1..=last)?), without]).await
    }

    async fn search(&mut self, all_of: Vec<SearchKey<'static>>) -> Result<Vec<u32>, ImapError> {
        let criteria = Vec1::try_from(all_of)
            .map_err(|error: ValidationError| ImapError::Protocol(error.to_string()))?;
        // io-imap's own command keeps only the last line of an answer in several.
        let body = CommandBody::Search { charset: None, criteria, uid: true };
        let command = Command { tag: TagGenerator::new().generate(), body };
        let answer = self.run_within(ImapSend::new(CommandCodec::new(), command), SEARCH_BYTES).await?;
        if let Some(bye) = answer.bye {
            return Err(ImapError::Ended(clipped(bye.text.as_ref())));
        }
        let Some(Tagged { body, .. }) = answer.tagged else {
            return Err(ImapError::Protocol("no end of the answer to SEARCH".to_owned()));
        };
        if body.kind != StatusKind::Ok {
            return Err(ImapError::No(clipped(body.text.as_ref())));
        }
        let numbers = |data| if let Data::Search(uids, _) = data { uids } else { Vec::new() };
        let found = answer.data.into_iter().flat_map(numbers).map(NonZeroU32::get);
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Gives these messages a flag. Those that are gone are left out by the server.
    ///
    /// # Errors
    /// If the server refuses or does not answer as it should.
    pub async fn flag(&mut self, of: &[u32], flag: &str) -> Result<(), ImapError> {
        let options = ImapMessageStoreOptions { uid: true };
        let flags = vec![parsed_flag(flag)?];
        self.run(ImapMessageStore::new(listed(of)?, StoreType::Add, flags, options)).await.map(drop)
    }

    /// Moves these messages to another folder. Those that are gone are left out by the server.
    ///
    /// # Errors
    /// If there is no such folder or the server does not answer as it should.
    pub async fn move_to(&mut self, of: &[u32], name: &str) -> Result<(), ImapError> {
        let options = ImapMessageMoveOptions { uid: true };
        self.run(ImapMessageMove::new(listed(of)?, folder(name)?, options)).await.map(drop)
    }
}

fn folder(name: &str) -> Result<Mailbox<'static>, ImapError> {
    Mailbox::try_from(name.as_bytes().to_vec()).map_err(|error| ImapError::Name {
        what: "folder",
        value: name.to_owned(),
        why: error.to_string(),
    })
}

fn folder_name(folder: &Mailbox<'_>) -> String {
    match folder {
        Mailbox::Inbox => "INBOX".to_owned(),
        Mailbox::Other(name) => String::from_utf8_lossy(name.as_ref()).into_owned(),
    }
}

fn parsed_flag(flag: &str) -> Result<Flag<'static>, ImapError> {
    Flag::try_from(flag)
        .map(IntoStatic::into_static)
        .map_err(|_| no_flag(flag, "a keyword, or \\Seen, \\Flagged, \\Answered or \\Deleted"))
}

fn no_flag(flag: &str, rule: &str) -> ImapError {
    ImapError::Name { what: "flag", value: flag.to_owned(), why: format!("must be {rule}") }
}

pub(crate) fn uids(range: RangeInclusive<u32>) -> Result<SequenceSet, ImapError> {
    let text = match *range.end() {
        u32::MAX => format!("{}:*", range.start()),
        end => format!("{}:{end}", range.start()),
    };
    SequenceSet::try_from(text.as_str()).map_err(|error| ImapError::Protocol(format!("{text}: {error}")))
}

fn listed(of: &[u32]) -> Result<SequenceSet, ImapError> {
    let uids: Vec<_> = of.iter().filter_map(|uid| NonZeroU32::new(*uid)).collect();
    SequenceSet::try_from(uids).map_err(|error| ImapError::Protocol(error.to_string()))
}
