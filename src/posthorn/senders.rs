// SPDX-License-Identifier: Apache-2.0
//! Shows the senders of a registry as a table. Pure.

use mail::{Registration, Role};
use mail_parser::DateTime;

use crate::show;

/// A row of the table. Times are seconds since 1970, 0: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Address or `@domain`; empty if only the digest is known.
    pub address: String,
    /// Its keyed digest.
    pub digest: Vec<u8>,
    /// What it counts as now.
    pub registry: u8,
    /// What it may do.
    pub role: u8,
    /// When it was registered.
    pub registered_at: i64,
    /// When it was revoked.
    pub revoked_at: i64,
    /// From when on it counts.
    pub valid_from: i64,
    /// From when on it counts no more.
    pub valid_until: i64,
    /// SHA-256 of its DKIM key; zeros: any.
    pub dkim_key: Vec<u8>,
}

/// The table, with a line for each sender, and how many there are.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![["SENDER", "STATE", "ROLE", "REGISTERED", "REMARKS"].map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let text = show::columns(&lines);
    match rows.len() {
        0 => "The registry has no sender.\n".to_owned(),
        1 => text + "1 sender\n",
        count => text + &format!("{count} senders\n"),
    }
}

fn cells(row: &Row) -> [String; 5] {
    let name = match row.address.as_str() {
        "" => format!("digest {}", hex::encode(&row.digest)),
        address => show::line(address),
    };
    let state = match Registration::ALL.into_iter().find(|known| *known as u8 == row.registry) {
        Some(Registration::Active) => "active",
        Some(Registration::Revoked) => "revoked",
        Some(Registration::NotValidNow) => "not valid now",
        _ => "unknown",
    };
    let role = match row.role {
        role if role == Role::Observer as u8 => "observer",
        role if role == Role::Operator as u8 => "operator",
        _ => "-",
    };
    let mut remarks = Vec::new();
    for (words, time) in
        [("revoked", row.revoked_at), ("valid from", row.valid_from), ("valid until", row.valid_until)]
    {
        if time != 0 {
            remarks.push(format!("{words} {}", moment(time)));
        }
    }
    if row.dkim_key.iter().any(|byte| *byte != 0) {
        remarks.push(format!("DKIM key {}", hex::encode(&row.dkim_key)));
    }
    let registered = if row.registered_at == 0 { "never".to_owned() } else { moment(row.registered_at) };
    [name, state.to_owned(), role.to_owned(), registered, remarks.join(", ")]
}

/// A time in UTC.
fn moment(seconds: i64) -> String {
    DateTime::from_timestamp(seconds).to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_each_sender_with_what_limits_it_and_nothing_that_a_terminal_obeys() {
        let dana = Row {
            address: "dana@dispatch.example".to_owned(),
            registry: Registration::Active as u8,
            role: Role::Operator as u8,
            registered_at: 1_800_000_000,
            valid_until: 1_900_000_000,
            dkim_key: vec![0xab; 32],
            ..Row::default()
        };
        let gone = Row {
            digest: vec![0x11; 32],
            registry: Registration::Revoked as u8,
            revoked_at: 1_800_000_000,
            ..Row::default()
        };
        let hostile = Row { address: "@\u{1b}[2Jx.example".to_owned(), ..Row::default() };
        let text = table(&[dana, gone, hostile]);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>())
            .collect();
        assert_eq!(lines[0], ["SENDER", "STATE", "ROLE", "REGISTERED", "REMARKS"]);
        let remarks = format!("valid until 2030-03-17T17:46:40Z, DKIM key {}", "ab".repeat(32));
        assert_eq!(
            lines[1],
            ["dana@dispatch.example", "active", "operator", "2027-01-15T08:00:00Z", &remarks]
        );
        let digest = format!("digest {}", "11".repeat(32));
        assert_eq!(lines[2], [&digest, "revoked", "-", "never", "revoked 2027-01-15T08:00:00Z"]);
        assert!(text.ends_with("3 senders\n") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(table(&[]), "The registry has no sender.\n");
    }
}
