// SPDX-License-Identifier: Apache-2.0
//! Writes and reads addresses of an Ethereum chain with the checksum that is in the case of their letters (EIP-55), so that
//! a mistyped address is noticed.

use std::fmt::Write;

use sha3::{Digest, Keccak256};

/// Bytes of an address.
pub type Address = [u8; 20];

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.rule())]
pub enum Eip55Error {
    /// It does not look like one.
    Form,
    /// One of its digits is wrong, or the case of its letters was changed.
    Checksum,
}

impl Eip55Error {
    /// What the text must be.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Form => "0x and 40 hex digits",
            Self::Checksum => {
                "an address with the checksum of EIP-55 in the case of its letters; a digit is wrong"
            }
        }
    }
}

/// Writes `0x` and 40 hex digits, of which a letter is upper-case if its place in the hash of the digits says so.
pub fn to_eip55(address: &Address) -> String {
    let mut digits = String::with_capacity(40);
    for byte in address {
        // A string takes everything.
        let _ = write!(digits, "{byte:02x}");
    }
    let hash = Keccak256::digest(digits.as_bytes());
    let half = |place: usize| {
        let byte = hash.get(place / 2).copied().unwrap_or_default();
        if place.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    };
    let raised = digits.char_indices().map(|(place, digit)| match half(place) {
        8.. => digit.to_ascii_uppercase(),
        _ => digit,
    });
    ['0', 'x'].into_iter().chain(raised).collect()
}

/// Reads an address. One whose letters are all of one case has no checksum, and is taken as it is.
///
/// # Errors
/// What the text must be.
pub fn from_eip55(text: &str) -> Result<Address, Eip55Error> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40).ok_or(Eip55Error::Form)?;
    let mut address = [0; 20];
    for (byte, pair) in address.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let half = |digit: Option<&u8>| digit.and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (half(pair.first()), half(pair.get(1))) else {
            return Err(Eip55Error::Form);
        };
        *byte = u8::try_from(high << 4 | low).map_err(|_| Eip55Error::Form)?;
    }
    let has = |is: fn(&u8) -> bool| digits.as_bytes().iter().any(is);
    let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    if is_mixed && to_eip55(&address) != text { Err(Eip55Error::Checksum) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of EIP-55, "Test Cases".
    const EXAMPLES: [&str; 8] = [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn the_examples_of_the_eip_are_read_and_written() {
        for text in EXAMPLES {
            assert_eq!(to_eip55(&from_eip55(text).unwrap()), text);
        }
    }

    #[test]
    fn a_changed_digit_is_noticed_and_one_case_is_taken_without_a_checksum() {
        let text = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(from_eip55(&text.replace("5aA", "4aA")), Err(Eip55Error::Checksum));
        assert_eq!(from_eip55(&text.replace("5aA", "5AA")), Err(Eip55Error::Checksum));
        assert_eq!(from_eip55(&text.to_lowercase()), from_eip55(text));
        for text in ["", "0x", &text[2..], &text[..41], &format!("{text}0"), &text.replace('b', "g")] {
            assert_eq!(from_eip55(text), Err(Eip55Error::Form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_reads_back(address: [u8; 20]) {
            prop_assert_eq!(from_eip55(&to_eip55(&address)), Ok(address));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = from_eip55(&text);
            prop_assert_eq!(from_eip55(&format!("0x{text}")).is_ok(), text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}
