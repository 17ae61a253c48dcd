// SPDX-License-Identifier: Apache-2.0
//! Calls the sender registry: what it has of a sender, changes, the list of all.
//!
//! Changes are made by the registrar's account, one after another.

use mail::{Registration, Role};
use web3::{
    Web3,
    ethabi::Token,
    types::{Address, U256},
};

use crate::{
    Connection, Ledger, LedgerError, Mined,
    account::{Call, action},
    contracts::{Artifact, word},
    queries::call,
};

/// Keyed digest of an address or of a domain.
pub(super) type Digest = [u8; 32];

/// What a sender is registered for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What it may do.
    pub role: Role,
    /// From when on it counts [s since 1970]; `None`: from its registration on.
    pub valid_from: Option<u64>,
    /// From when on it counts no more [s since 1970]; `None`: never.
    pub valid_until: Option<u64>,
    /// SHA-256 of the public DKIM key that must sign its mails; `None`: any.
    pub dkim_key: Option<[u8; 32]>,
}

impl Terms {
    /// This role, at any time, with any key.
    pub fn of(role: Role) -> Self {
        Self { role, ..Self::default() }
    }

    fn tokens(&self) -> [Token; 4] {
        [
            Token::Uint((self.role as u8).into()),
            Token::Uint(self.valid_from.unwrap_or(0).into()),
            Token::Uint(self.valid_until.unwrap_or(0).into()),
            Token::FixedBytes(self.dkim_key.unwrap_or_default().to_vec()),
        ]
    }
}

/// Bits of a role and of a time in the contract's storage.
const ROLE_BITS: usize = 8;
const TIME_BITS: usize = 48;

/// What the registry has of a sender; the default of one that it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// As it was registered last.
    pub terms: Terms,
    /// When that was [s since 1970]; `None`: never.
    pub registered_at: Option<u64>,
    /// When it was revoked [s since 1970]; `None`: not since.
    pub revoked_at: Option<u64>,
}

impl Sender {
    /// What it counts as at `now` [s since 1970].
    pub fn registration(&self, now: u64) -> Registration {
        let Terms { valid_from, valid_until, .. } = self.terms;
        match (self.registered_at, self.revoked_at) {
            (_, Some(_)) => Registration::Revoked,
            (None, None) => Registration::Unregistered,
            _ if valid_from.is_some_and(|from| now < from) => Registration::NotValidNow,
            _ if valid_until.is_some_and(|until| now >= until) => Registration::NotValidNow,
            _ => Registration::Active,
        }
    }

    /// Decodes the contract's struct of this name.
    fn parse(token: &Token) -> Option<Self> {
        let Token::Tuple(fields) = token else { return None };
        let [Token::Uint(role), times @ .., Token::FixedBytes(key)] = fields.as_slice() else { return None };
        let [registered_at, revoked_at, valid_from, valid_until] = times else { return None };
        let time = |token: &Token| match token {
            Token::Uint(time) => u64::try_from(*time).ok().map(|time| (time != 0).then_some(time)),
            _ => None,
        };
        let role = Role::ALL.into_iter().find(|known| U256::from(*known as u8) == *role)?;
        let key: [u8; 32] = key.as_slice().try_into().ok()?;
        let terms = Terms {
            role,
            valid_from: time(valid_from)?,
            valid_until: time(valid_until)?,
            dkim_key: (key != [0; 32]).then_some(key),
        };
        Some(Self { terms, registered_at: time(registered_at)?, revoked_at: time(revoked_at)? })
    }

    /// Reads the contract's struct of this name from the two slots that it is stored in: its first five fields, from the
    /// lowest byte on, and the key.
    pub(super) fn of_storage(first: U256, second: U256) -> Option<Self> {
        let time = |place: usize| {
            let time = (first >> place).low_u64() & ((1 << TIME_BITS) - 1);
            (time != 0).then_some(time)
        };
        let [registered_at, revoked_at, valid_from, valid_until] =
            [0, 1, 2, 3].map(|place| time(ROLE_BITS + place * TIME_BITS));
        let role = Role::ALL.into_iter().find(|known| *known as u8 == first.byte(0))?;
        let key = word(second);
        let dkim_key = (key != [0; 32]).then_some(key);
        Some(Self { terms: Terms { role, valid_from, valid_until, dkim_key }, registered_at, revoked_at })
    }

    fn parse_all(token: Option<&Token>) -> Option<Vec<Self>> {
        let Some(Token::Array(senders)) = token else { return None };
        senders.iter().map(Self::parse).collect()
    }
}

impl Ledger {
    /// Looks up senders in the registry, all as of one block; also returns the time of that block [s since 1970]. The
    /// answers are in the order of the digests.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn senders<const N: usize>(
        &self,
        digests: [Digest; N],
    ) -> Result<(u64, [Sender; N]), LedgerError> {
        let (time, found) = find(&self.web3, self.addresses.sender_registry, &self.registry, digests).await?;
        Ok((time, found.try_into().map_err(|_| no_registrations("find"))?))
    }

    /// Looks up one sender.
    ///
    /// # Errors
    /// As [`Ledger::senders`].
    pub async fn sender(&self, digest: Digest) -> Result<Sender, LedgerError> {
        let (_, [sender]) = self.senders([digest]).await?;
        Ok(sender)
    }

    /// At most `limit` of the senders that were ever registered or revoked, from place `first` on, and how many there are.
    ///
    /// # Errors
    /// Retryable if the chain cannot be reached.
    pub async fn list_senders(
        &self,
        first: u64,
        limit: u64,
    ) -> Result<(Vec<(Digest, Sender)>, u64), LedgerError> {
        let range = [first, limit].map(|number| Token::Uint(number.into()));
        let answer = self.call(self.addresses.sender_registry, &self.registry, "list", &range).await?;
        let count = match answer.first() {
            Some(Token::Uint(count)) => u64::try_from(*count).ok(),
            _ => None,
        };
        let digest = |token: &Token| match token {
            Token::FixedBytes(digest) => Digest::try_from(digest.as_slice()).ok(),
            _ => None,
        };
        let digests = match answer.get(1) {
            Some(Token::Array(digests)) => digests.iter().map(digest).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        match (digests, Sender::parse_all(answer.get(2)), count) {
            (Some(digests), Some(senders), Some(count)) if digests.len() == senders.len() => {
                Ok((digests.into_iter().zip(senders).collect(), count))
            }
            _ => Err(no_registrations("list")),
        }
    }

    /// Registers a sender, or changes its terms; also undoes the revocation that the registry has now, and no later one,
    /// whichever of them is mined first. Returns once it is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] for terms that the contract does not take, or if this account is no registrar, and this or
    /// [`LedgerError::Failed`] if the sender was revoked meanwhile; retryable if the chain cannot be reached.
    pub async fn register(&self, digest: Digest, terms: Terms) -> Result<Mined, LedgerError> {
        let known = self.sender(digest).await?.revoked_at;
        self.register_after(known, digest, terms).await
    }

    /// As [`register`](Self::register), but undoes only the revocation of this time [s since 1970], or none.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn register_after(
        &self,
        known: Option<u64>,
        digest: Digest,
        terms: Terms,
    ) -> Result<Mined, LedgerError> {
        let _registering = self.registering.lock().await;
        let call = registering(&self.registry, self.addresses.sender_registry, digest, &terms, known)?;
        self.registrar().send(call, None).await
    }

    /// Takes every right from a sender, whatever it had. Returns once it is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::Reverted`] if this account is no registrar; retryable if the chain cannot be reached.
    pub async fn revoke(&self, digest: Digest) -> Result<Mined, LedgerError> {
        let _registering = self.registering.lock().await;
        let call = revoking(&self.registry, self.addresses.sender_registry, digest)?;
        self.registrar().send(call, None).await
    }
}

/// The time of a registry's newest block, and what it has of these then.
pub(super) async fn find(
    web3: &Web3<Connection>,
    registry: Address,
    artifact: &Artifact,
    digests: impl IntoIterator<Item = Digest>,
) -> Result<(u64, Vec<Sender>), LedgerError> {
    let wanted = digests.into_iter().map(|digest| Token::FixedBytes(digest.to_vec())).collect();
    let answer = call(web3, registry, artifact, "find", &[Token::Array(wanted)]).await?;
    let time = match answer.first() {
        Some(Token::Uint(time)) => u64::try_from(*time).ok(),
        _ => None,
    };
    time.zip(Sender::parse_all(answer.get(1))).ok_or_else(|| no_registrations("find"))
}

fn no_registrations(action: &'static str) -> LedgerError {
    LedgerError::Answer { action, rule: "registrations".to_owned() }
}

/// The call that registers a sender in this registry, and ends the revocation of this time.
pub(super) fn registering(
    artifact: &Artifact,
    registry: Address,
    digest: Digest,
    terms: &Terms,
    revoked_at: Option<u64>,
) -> Result<Call, LedgerError> {
    let [role, from, until, key] = terms.tokens();
    let revoked_at = Token::Uint(revoked_at.unwrap_or(0).into());
    let arguments = [Token::FixedBytes(digest.to_vec()), role, from, until, key, revoked_at];
    let data = artifact.encode("register", &arguments)?;
    Ok(Call { action: action::REGISTER, to: Some(registry), data })
}

/// The call that revokes a sender in this registry.
pub(super) fn revoking(artifact: &Artifact, registry: Address, digest: Digest) -> Result<Call, LedgerError> {
    let data = artifact.encode("revoke", &[Token::FixedBytes(digest.to_vec())])?;
    Ok(Call { action: action::REVOKE, to: Some(registry), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_counts_from_its_registration_to_its_revocation_within_its_validity() {
        let unknown = Sender::default();
        assert_eq!(unknown.registration(5), Registration::Unregistered);
        let active = Sender { terms: Terms::of(Role::Observer), registered_at: Some(3), revoked_at: None };
        assert_eq!(active.registration(5), Registration::Active);
        assert_eq!(Sender { revoked_at: Some(4), ..active }.registration(5), Registration::Revoked);
        // It may be revoked before it is ever registered.
        assert_eq!(Sender { revoked_at: Some(4), ..unknown }.registration(5), Registration::Revoked);
        let terms = Terms { valid_from: Some(10), valid_until: Some(20), ..active.terms };
        let limited = Sender { terms, ..active };
        let at = |now| limited.registration(now);
        assert_eq!((at(9), at(10)), (Registration::NotValidNow, Registration::Active));
        assert_eq!((at(19), at(20)), (Registration::Active, Registration::NotValidNow));
        assert_eq!(Sender { revoked_at: Some(4), ..limited }.registration(30), Registration::Revoked);
    }
}
