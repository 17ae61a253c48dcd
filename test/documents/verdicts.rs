// SPDX-License-Identifier: Apache-2.0
//! Generates `docs/verdicts.md` from the mails of `test/authentication/attacks.rs`.

use super::{is_current, table};
use crate::authentication::attacks;

#[test]
fn the_table_of_verdicts_is_current() {
    let columns = ["mail", "SPF", "DKIM", "DMARC", "difference"];
    let mut text = String::from(
        "<!-- Made by `make docs` of test/authentication/attacks.rs. -->\n\n# Verdicts\n\n\
         What the authenticator finds out about mails that claim to be of `example.org`, whose SPF record lists 203.0.113.7, whose DKIM key is\n\
         `s1._domainkey.example.org` and whose DMARC policy is `p=reject`; the client is 192.0.2.1 unless the row says otherwise. Tests compare each row with\n\
         what pyspf, dkimpy and authheaders find: a mail that proves its sender here proves it to them, and the other way round, but for the rows with a\n\
         difference. \"not asked\": it could prove nothing, so DNS is not asked. What an order needs beyond `pass` is in\n\
         [0034](decisions/0034-what-an-order-rests-on.md) and [0074](decisions/0074-public-suffix-list-for-orders.md).\n\n",
    );
    text += &table(&columns, attacks::table());
    is_current("docs/verdicts.md", &text);
}
