// SPDX-License-Identifier: Apache-2.0
//! Shows how a ledger and its chain stand, from what the authenticator says on `/diagnostics`. Pure.

use std::collections::BTreeMap;

use crate::show;

/// A gwei [wei].
const GWEI: f64 = 1e9;

/// What a status says besides its level and its sentence, by name.
pub type Values = BTreeMap<String, String>;

/// The lines of a ledger's status; facts that the authenticator does not know yet are left out.
pub fn text(message: &str, values: &Values) -> String {
    let facts = Facts(values);
    let rows = [
        ("state", Some(show::line(message))),
        ("chain", facts.chain()),
        ("head", facts.head()),
        ("ledger", facts.ledger()),
        ("last anchor", facts.last_anchor()),
        ("registry", facts.label("registry")),
        ("account", facts.account("account", "balance_gwei")),
        ("registrar", facts.account("registrar", "registrar_balance_gwei")),
        ("gas price", facts.gas_price()),
    ];
    rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<12}{}\n", value?))).collect()
}

struct Facts<'v>(&'v Values);

impl Facts<'_> {
    fn label(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| show::line(text))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    fn chain(&self) -> Option<String> {
        Some(format!("{}; a transaction is final {}", self.label("chain_id")?, self.label("finality")?))
    }

    fn head(&self) -> Option<String> {
        let mut text =
            format!("block {}, {} s ago", grouped(self.number("head_block")?), self.number("head_age_s")?);
        if let Some(finalized) = self.number("finalized_block") {
            text += &format!("; finalized to block {}", grouped(finalized));
        }
        Some(text)
    }

    fn ledger(&self) -> Option<String> {
        let [anchored, pending, in_flight] =
            ["anchored", "pending", "in_flight"].map(|name| self.number(name).unwrap_or(0));
        Some(format!(
            "{}; entries anchored: {}, waiting: {}; transactions in flight: {}",
            self.label("ledger")?,
            grouped(anchored),
            grouped(pending),
            grouped(in_flight)
        ))
    }

    fn last_anchor(&self) -> Option<String> {
        let (entries, fee) = (self.number("last_anchor_entries")?, self.number("last_anchor_fee_gwei")?);
        let each = fee as f64 / entries.max(1) as f64;
        let digits = if each < 10.0 { 3 } else { 0 };
        Some(format!(
            "block {}, entries: {}, for {}: {each:.digits$} gwei an entry",
            grouped(self.number("last_anchor_block")?),
            grouped(entries),
            ether(fee)
        ))
    }

    fn account(&self, name: &str, balance: &str) -> Option<String> {
        Some(format!("{}, {}", self.label(name)?, ether(self.number(balance)?)))
    }

    fn gas_price(&self) -> Option<String> {
        let [price, most] = ["gas_price_wei", "max_fee_wei"].map(|name| self.number(name));
        Some(format!(
            "{:.3} gwei; at most {} gwei is paid",
            price? as f64 / GWEI,
            grouped((most? as f64 / GWEI) as u64)
        ))
    }
}

/// An amount in ether, to the gwei.
fn ether(gwei: u64) -> String {
    let (whole, rest) = (gwei / 1_000_000_000, gwei % 1_000_000_000);
    let digits = format!("{rest:09}");
    match digits.trim_end_matches('0') {
        "" => format!("{} ether", grouped(whole)),
        digits => format!("{}.{digits} ether", grouped(whole)),
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_fact_has_a_line_and_what_is_not_known_has_none() {
        let all = values(&[
            ("chain_id", "1"),
            ("finality", "once its block is finalized"),
            ("head_block", "23456789"),
            ("head_age_s", "4"),
            ("finalized_block", "23456725"),
            ("ledger", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
            ("anchored", "12345"),
            ("pending", "3"),
            ("in_flight", "1"),
            ("last_anchor_block", "23456700"),
            ("last_anchor_entries", "12"),
            ("last_anchor_fee_gwei", "412000"),
            ("registry", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"),
            ("account", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"),
            ("balance_gwei", "1234000000"),
            ("gas_price_wei", "12345678901"),
            ("max_fee_wei", "500000000000"),
        ]);
        let expected = "\
state       anchors
chain       1; a transaction is final once its block is finalized
head        block 23,456,789, 4 s ago; finalized to block 23,456,725
ledger      0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed; entries anchored: 12,345, waiting: 3; transactions in flight: 1
last anchor block 23,456,700, entries: 12, for 0.000412 ether: 34333 gwei an entry
registry    0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359
account     0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB, 1.234 ether
gas price   12.346 gwei; at most 500 gwei is paid
";
        assert_eq!(text("anchors", &all), expected);
        assert_eq!(text("connecting to the chain", &Values::new()), "state       connecting to the chain\n");
        // Whatever somebody else writes on the topic.
        let hostile =
            values(&[("chain_id", "\u{1b}[2J"), ("finality", ""), ("head_block", "x"), ("head_age_s", "-1")]);
        assert!(!text("\u{1b}", &hostile).contains('\u{1b}'));
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(ether(0), "0 ether");
        assert_eq!(ether(1), "0.000000001 ether");
        assert_eq!(ether(u64::MAX), "18,446,744,073.709551615 ether");
    }
}
