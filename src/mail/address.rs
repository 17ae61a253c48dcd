//! Validates the addresses that posthorn sends from and to.
//!
//! Every accepted address can be written to without SMTPUTF8 and is safe in a header; whether it exists is not checked.

/// Longest address, bytes: a path (RFC 5321 section 4.5.3.1.3) without its angle brackets.
const MAX_BYTES: usize = 254;

/// Whether `text` is exactly one bare address that works without SMTPUTF8 (RFC 5321 section 4.1.2, except quoted
/// local parts).
pub fn is_address(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"<>()[],;:\\\"".contains(&byte);
    let parts = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@') && !domain.starts_with('.')
    });
    parts && text.bytes().all(allowed) && text.len() <= MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_addresses_only() {
        assert!(["a@b", "posthorn@localhost", "dana+x@dispatch.example"].into_iter().all(is_address));
        let long = format!("{}@example.org", "a".repeat(250));
        let bad = [
            "", "a", "@b", "a@", "a@b@c", "a@.b", "a b@c", "<a@b>", "a@b,c@d", "\"a\"@b", "ü@b", "a@b\r\n",
            &long,
        ];
        assert_eq!(bad.into_iter().find(|text| is_address(text)), None);
    }
}
