// SPDX-License-Identifier: Apache-2.0
//! Evaluates SPF (RFC 7208): whether a host may send for a domain. Asks DNS through [`Lookup`], and nothing else.
//!
//! Of what the RFC leaves open, the stricter: a record is read whole before any of it counts; more than two terms whose
//! names DNS does not have are a permanent error (section 4.6.4); the macro `p` is one, because the client's own DNS would
//! decide what it stands for (section 7.2 advises against it). `exp` is not asked for.
//!
//! Which host and which domain is up to `verify`, alignment to DMARC.

mod macros;
mod record;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
};

use mail::{AuthResult, ascii_domain};

use self::{
    macros::{DomainSpec, Facts, is_name},
    record::{Mechanism, Prefixes, Record, Selected},
};

/// Terms that may ask DNS (RFC 7208 section 4.6.4).
const MAX_TERMS: u32 = 10;
/// Terms whose names DNS may not have.
const MAX_VOID: u32 = 2;
/// Mail exchangers of a name, and names of a client, that are looked at.
const MAX_NAMES: usize = 10;

/// DNS did not answer, or said that it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Answers of DNS about a name in ASCII without a final dot; empty if the name or the type does not exist.
pub trait Lookup: Sync {
    /// TXT records, the strings of each concatenated.
    fn txt(&self, name: &str) -> impl Future<Output = Result<Vec<Vec<u8>>, Unanswered>> + Send;
    /// Addresses from A records.
    fn a(&self, name: &str) -> impl Future<Output = Result<Vec<Ipv4Addr>, Unanswered>> + Send;
    /// Addresses from AAAA records.
    fn aaaa(&self, name: &str) -> impl Future<Output = Result<Vec<Ipv6Addr>, Unanswered>> + Send;
    /// Mail exchangers, the most preferred first.
    fn mx(&self, name: &str) -> impl Future<Output = Result<Vec<String>, Unanswered>> + Send;
    /// Names of an address.
    fn ptr(&self, ip: IpAddr) -> impl Future<Output = Result<Vec<String>, Unanswered>> + Send;

    /// Waits no longer than a part of the time for all; `None` if that is over.
    fn briefly<T: Send>(
        &self,
        work: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send {
        async { Some(work.await) }
    }
}

/// The question whether `ip` may send mail of a domain.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// Address of the client.
    pub ip: IpAddr,
    /// Local part of the sender; `postmaster` if there is none (section 4.3).
    pub local: &'q str,
    /// Domain of the sender, or of HELO.
    pub domain: &'q str,
    /// What the client said in HELO or EHLO.
    pub helo: &'q str,
}

/// Evaluates the function `check_host` (section 4).
pub async fn check_host(dns: &impl Lookup, query: &Query<'_>) -> AuthResult {
    let Query { ip, local, domain, helo } = *query;
    let ip = ip.to_canonical();
    // As DNS has it. A name of one label is no domain of anybody (section 4.3).
    let Some(domain) = ascii_domain(domain.strip_suffix('.').unwrap_or(domain)) else {
        return AuthResult::None;
    };
    if !is_name(&domain) || !domain.contains('.') {
        return AuthResult::None;
    }
    let local = if local.is_empty() { "postmaster" } else { local };
    let facts = Facts { local, sender_domain: &domain, ip, helo };
    let mut evaluation = Evaluation { dns, facts, terms: 0, void: 0 };
    match evaluation.check(domain.clone()).await {
        Ok(result) => result,
        Err(Stop::TempError) => AuthResult::TempError,
        Err(Stop::PermError) => AuthResult::PermError,
    }
}

/// Ends the whole evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    TempError,
    PermError,
}

impl From<Unanswered> for Stop {
    fn from(_: Unanswered) -> Self {
        Self::TempError
    }
}

struct Evaluation<'q, D> {
    dns: &'q D,
    facts: Facts<'q>,
    terms: u32,
    void: u32,
}

/// How a record ends: with the result of what matches, or with another record.
enum End {
    Result(AuthResult),
    Redirect(String),
}

impl<D: Lookup> Evaluation<'_, D> {
    /// Evaluates the record of `domain`; `None` if it has none. Boxed, because a record may include others.
    fn check(
        &mut self,
        domain: String,
    ) -> Pin<Box<dyn Future<Output = Result<AuthResult, Stop>> + Send + '_>> {
        Box::pin(async move {
            let mut domain = domain;
            let mut redirected = false;
            loop {
                let record = match self.record(&domain).await? {
                    // Section 6.1: a redirection to nothing.
                    None if redirected => return Err(Stop::PermError),
                    None => return Ok(AuthResult::None),
                    Some(record) => record,
                };
                match self.evaluate(record, &domain).await? {
                    End::Result(result) => return Ok(result),
                    End::Redirect(target) => (domain, redirected) = (target, true),
                }
            }
        })
    }

    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        match record::select(&self.dns.txt(domain).await?) {
            Selected::None => Ok(None),
            Selected::One(record) => Ok(Some(record)),
            Selected::Broken => Err(Stop::PermError),
        }
    }

    async fn evaluate(&mut self, record: Record, domain: &str) -> Result<End, Stop> {
        let Record { directives, redirect } = record;
        let has_all = directives.iter().any(|directive| directive.mechanism == Mechanism::All);
        for directive in directives {
            if self.matches(&directive.mechanism, domain).await? {
                return Ok(End::Result(directive.result));
            }
        }
        let Some(target) = redirect.filter(|_| !has_all) else { return Ok(End::Result(AuthResult::Neutral)) };
        self.begin_term()?;
        target.expand(&self.facts, domain).map(End::Redirect).ok_or(Stop::PermError)
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, length) => Ok(is_within(self.facts.ip, (*network).into(), *length)),
            Mechanism::Ip6(network, length) => Ok(is_within(self.facts.ip, (*network).into(), *length)),
            Mechanism::Include(target) => {
                self.begin_term()?;
                let target = target.expand(&self.facts, domain).ok_or(Stop::PermError)?;
                match self.check(target).await? {
                    AuthResult::Pass => Ok(true),
                    AuthResult::None => Err(Stop::PermError),
                    _ => Ok(false),
                }
            }
            Mechanism::Exists(target) => {
                self.begin_term()?;
                let Some(name) = target.expand(&self.facts, domain) else { return Ok(false) };
                // Whatever the client's address is.
                let found = self.dns.a(&name).await?;
                self.end_term(found.is_empty())?;
                Ok(!found.is_empty())
            }
            Mechanism::A(target, prefixes) => {
                self.begin_term()?;
                let Some(name) = self.target(target.as_ref(), domain) else { return Ok(false) };
                let found = self.addresses(&name).await?;
                self.end_term(found.is_empty())?;
                Ok(self.is_one_of(&found, *prefixes))
            }
            Mechanism::Mx(target, prefixes) => {
                self.begin_term()?;
                let Some(name) = self.target(target.as_ref(), domain) else { return Ok(false) };
                let exchangers = self.dns.mx(&name).await?;
                self.end_term(exchangers.is_empty())?;
                // A null MX (RFC 7505) has the root as its name.
                for (count, exchanger) in exchangers.iter().filter(|name| is_name(name)).enumerate() {
                    if count == MAX_NAMES {
                        return Err(Stop::PermError);
                    }
                    if self.is_one_of(&self.addresses(exchanger).await?, *prefixes) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Mechanism::Ptr(target) => {
                self.begin_term()?;
                let Some(name) = self.target(target.as_ref(), domain) else { return Ok(false) };
                Ok(self.has_name_in(&name).await?)
            }
        }
    }

    /// Whether the client has a name in `domain` that leads back to its address (section 5.5). Errors of DNS match
    /// nothing.
    async fn has_name_in(&mut self, domain: &str) -> Result<bool, Stop> {
        // The client's own DNS answers for these, and its silence must not be taken for that of the domain.
        let names =
            self.dns.briefly(self.dns.ptr(self.facts.ip)).await.and_then(Result::ok).unwrap_or_default();
        self.end_term(names.is_empty())?;
        let is_in = |name: &&String| {
            let name = name.to_ascii_lowercase();
            name.strip_suffix(&domain.to_ascii_lowercase())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let leads_back = async {
            for name in names.iter().take(MAX_NAMES).filter(is_in) {
                if self.addresses(name).await.unwrap_or_default().contains(&self.facts.ip) {
                    return true;
                }
            }
            false
        };
        Ok(self.dns.briefly(leads_back).await.unwrap_or(false))
    }

    fn target(&self, target: Option<&DomainSpec>, domain: &str) -> Option<String> {
        match target {
            Some(target) => target.expand(&self.facts, domain),
            None => Some(domain.to_owned()),
        }
    }

    /// Addresses of a name, of the client's kind.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unanswered> {
        Ok(match self.facts.ip {
            IpAddr::V4(_) => self.dns.a(name).await?.into_iter().map(IpAddr::V4).collect(),
            IpAddr::V6(_) => self.dns.aaaa(name).await?.into_iter().map(IpAddr::V6).collect(),
        })
    }

    fn is_one_of(&self, addresses: &[IpAddr], prefixes: Prefixes) -> bool {
        let length = if self.facts.ip.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        addresses.iter().any(|address| is_within(self.facts.ip, *address, length))
    }

    /// Counts a term that asks DNS.
    fn begin_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > MAX_TERMS { Err(Stop::PermError) } else { Ok(()) }
    }

    /// Counts one whose name DNS does not have.
    fn end_term(&mut self, is_void: bool) -> Result<(), Stop> {
        self.void += u32::from(is_void);
        if self.void > MAX_VOID { Err(Stop::PermError) } else { Ok(()) }
    }
}

/// Whether the first `length` bits are the same; never of different kinds.
fn is_within(ip: IpAddr, network: IpAddr, length: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differing = ip.to_bits() ^ network.to_bits();
            differing.checked_shr(32_u32.saturating_sub(length.into())).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differing = ip.to_bits() ^ network.to_bits();
            differing.checked_shr(128_u32.saturating_sub(length.into())).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
#[cfg(feature = "net")]
mod tests;
