// SPDX-License-Identifier: Apache-2.0
//! Shows what trying a mailbox has found. Pure.

use crate::show;

/// A folder on its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Its name, as the server says.
    pub name: String,
    /// Whether mail_bridge reads it.
    pub is_read: bool,
    /// Messages in it.
    pub messages: u32,
    /// Those that nobody has read.
    pub unseen: u32,
}

/// The folders as a table, with which of them are read.
pub fn table(folders: &[Folder]) -> String {
    let mut lines = vec![["FOLDER", "MESSAGES", "UNSEEN", "READ BY MAIL_BRIDGE"].map(str::to_owned)];
    lines.extend(folders.iter().map(|folder| {
        let is_read = if folder.is_read { "yes" } else { "-" };
        [show::line(&folder.name), folder.messages.to_string(), folder.unseen.to_string(), is_read.to_owned()]
    }));
    show::columns(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_cannot_draw_on_the_terminal() {
        let inbox = Folder { name: "INBOX".into(), is_read: true, messages: 1204, unseen: 3 };
        let hostile = Folder { name: "\u{1b}[2J".into(), ..Folder::default() };
        let text = table(&[inbox, hostile]);
        let expected = "FOLDER     MESSAGES  UNSEEN  READ BY MAIL_BRIDGE\n\
                        INBOX      1204      3       yes\n\
                        \\u{1b}[2J  0         0       -\n";
        assert_eq!(text, expected);
    }
}
