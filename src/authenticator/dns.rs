// SPDX-License-Identifier: Apache-2.0
//! Answers the DNS queries of verification, either from a zone file alone or from name servers.
//!
//! [`super::spf`] asks by [`Lookup`]. mail-auth, which does DKIM and DMARC, has a resolver: with a zone file, it finds every
//! answer, including that a name does not exist, in what it takes for its cache, and its resolver has no server to
//! ask. Without one, the resolver's own cache is used, which is bounded and keyed by name and type.
//!
//! TXT records are not left to mail-auth, which takes the first that it can parse. What it takes for its cache of them,
//! [`TxtRecords`], notes which names a check has looked up; they are read again as [`super::records`] says, which the
//! resolver's cache answers, and the check runs once more, until it looks up nothing new. There is one for each check,
//! because mail-auth looks up a name without saying which kind of record it wants.
//!
//! [`super::zone`] parses the zone file; [`super::silence`] decides when not to ask.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mail_auth::{
    DnsError as Answer, DnssecStatus, Error, MX, MessageAuthenticator, Parameters, RecordSet, ResolverCache,
    Txt,
    common::verify::DomainKey,
    hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
        proto::{
            op::ResponseCode,
            rr::{Name, RData, RecordType},
        },
        system_conf::read_system_conf,
    },
};

use super::{
    records::{self, Reading, TxtAnswer},
    silence::{Question, Silence, Waits},
    spf::{Lookup, Unanswered},
    zone::{Records, Zone, ZoneError},
};

/// Maximum number of responses in the resolver's cache.
const CACHED_RESPONSES: u64 = 4096;
/// The resolver's `attempts` option: retries after a failed query.
const ATTEMPTS: usize = 2;

/// DNS cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The zone file cannot be used.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// The system's configuration or the given servers cannot be used.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
}

/// Source of DNS answers, with time limits.
pub struct Dns {
    pub(super) resolver: MessageAuthenticator,
    timeout: Duration,
    silence: Mutex<Silence>,
    /// Has every answer, if it is given.
    zone: Option<Zone>,
    answers: Answers,
}

impl Dns {
    /// Uses the zone file if there is one (parameter `dns_zone_file`), else `servers` (`dns_servers`) unless empty,
    /// else the system's servers.
    ///
    /// # Errors
    /// If the zone file or the system's configuration cannot be used, or the resolver cannot be set up.
    pub fn open(zone_file: Option<&Path>, servers: &[SocketAddr], waits: Waits) -> Result<Self, DnsError> {
        match zone_file {
            Some(file) => Self::zone(&Zone::read(file)?),
            None if servers.is_empty() => Self::system(waits),
            None => Self::servers(servers, waits),
        }
    }

    /// Uses the servers of the system's configuration.
    ///
    /// # Errors
    /// If the system's configuration cannot be used.
    pub fn system(waits: Waits) -> Result<Self, DnsError> {
        let (config, options) = read_system_conf().map_err(|error| DnsError::Resolver(error.to_string()))?;
        Self::new(config, options, waits)
    }

    /// Uses these servers, over UDP and TCP.
    ///
    /// # Errors
    /// If the resolver cannot be set up.
    pub fn servers(servers: &[SocketAddr], waits: Waits) -> Result<Self, DnsError> {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            config.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            config.connections.iter_mut().for_each(|connection| connection.port = address.port());
            config
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        Self::new(config, ResolverOpts::default(), waits)
    }

    /// Uses a zone and no server.
    ///
    /// # Errors
    /// If the resolver cannot be set up.
    pub fn zone(zone: &Zone) -> Result<Self, DnsError> {
        let waits = Waits { timeout: Duration::from_secs(1), silence: Duration::ZERO };
        Ok(Self::servers(&[], waits)?.with_zone(zone))
    }

    /// Takes every answer from `zone`: a name that it lacks does not exist, and no server is asked.
    #[must_use]
    pub fn with_zone(mut self, zone: &Zone) -> Self {
        self.answers = Answers::of(zone);
        self.zone = Some(zone.clone());
        self
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts, waits: Waits) -> Result<Self, DnsError> {
        options.attempts = ATTEMPTS;
        options.timeout = waits.timeout / 2;
        options.cache_size = CACHED_RESPONSES;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = MessageAuthenticator::new(config, options)
            .map_err(|error| DnsError::Resolver(error.to_string()))?;
        let silence = Mutex::new(Silence::new(waits.silence));
        Ok(Self { resolver, timeout: waits.timeout, silence, zone: None, answers: Answers::default() })
    }

    /// Runs `check`, which asks `question` about `domain`, and returns its outcome. `None`: it did not finish in
    /// time, or was skipped because there was no answer a moment ago. `is_answer` tells whether an outcome counts as
    /// an answer.
    pub(super) async fn ask<T>(
        &self,
        question: Question,
        domain: &str,
        check: impl Future<Output = T>,
        is_answer: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let silence = || lock(&self.silence);
        if silence().covers(question, domain, Instant::now()) {
            return None;
        }
        let outcome = tokio::time::timeout(self.timeout, check).await.ok();
        let answered = outcome.as_ref().is_some_and(is_answer);
        silence().note(question, domain, answered, Instant::now());
        outcome
    }

    /// TXT records for a check that wants DKIM keys.
    pub(super) fn dkim_keys(&self) -> TxtRecords<'_> {
        TxtRecords::new(records::key, &self.answers.dkim)
    }

    /// TXT records for a check that wants DMARC policies.
    pub(super) fn dmarc_policies(&self) -> TxtRecords<'_> {
        TxtRecords::new(records::dmarc, &self.answers.dmarc)
    }

    /// Runs a check that reads `txt`, again until it has looked up nothing without that.
    pub(super) async fn run<T, F: Future<Output = T>>(
        &self,
        txt: &TxtRecords<'_>,
        check: impl Fn() -> F,
    ) -> T {
        loop {
            let outcome = check().await;
            if !self.read(txt).await {
                return outcome;
            }
        }
    }

    /// Reads what a check has looked up without `txt`, or will ask for; returns whether there was anything.
    pub(super) async fn read(&self, txt: &TxtRecords<'_>) -> bool {
        let unread = std::mem::take(&mut *lock(&txt.unread));
        for name in &unread {
            let answer = match self.txt(name.trim_end_matches('.')).await {
                Ok(records) if records.is_empty() => not_found().into(),
                Ok(records) => (txt.reading)(&records),
                Err(Unanswered) => Txt::Error(Error::Dns(Answer::Resolver("no answer".to_owned()))).into(),
            };
            lock(&txt.answers).insert(name.clone(), answer);
        }
        !unread.is_empty()
    }

    /// mail-auth's parameters for one check, which reads `txt`.
    pub(super) fn query<'d, P>(&'d self, params: P, txt: &'d TxtRecords<'d>) -> Query<'d, P> {
        Query {
            params,
            cache_txt: Some(txt),
            // DMARC's `np=` asks whether a domain exists.
            cache_mx: Some(&self.answers.mx),
            cache_ipv4: Some(&self.answers.a),
            cache_ipv6: Some(&self.answers.aaaa),
            cache_ptr: None,
        }
    }

    /// Returns the size of a DKIM key in bits; `None` if `keys` does not have the key.
    pub(super) async fn key_bits(&self, name: &str, keys: &TxtRecords<'_>) -> Option<usize> {
        let key = self.resolver.txt_lookup::<DomainKey>(name, Some(keys)).await.ok()?;
        Some(key.p.public_key_bits())
    }
}

/// mail-auth's parameters for one check, with the known answers as its caches.
pub(super) type Query<'d, P> = Parameters<
    'd,
    P,
    TxtRecords<'d>,
    Known<Box<str>, RecordSet<MX>>,
    Known<Box<str>, RecordSet<Ipv4Addr>>,
    Known<Box<str>, RecordSet<Ipv6Addr>>,
    Known<IpAddr, RecordSet<Box<str>>>,
>;

/// The TXT records that one check has asked for so far.
pub(super) struct TxtRecords<'d> {
    reading: Reading,
    /// Those that are known without a query.
    known: &'d Known<Box<str>, TxtAnswer>,
    answers: Mutex<HashMap<Box<str>, TxtAnswer>>,
    /// Names that were looked up and are not among the answers yet.
    unread: Mutex<BTreeSet<Box<str>>>,
}

impl<'d> TxtRecords<'d> {
    fn new(reading: Reading, known: &'d Known<Box<str>, TxtAnswer>) -> Self {
        Self { reading, known, answers: Mutex::default(), unread: Mutex::default() }
    }

    /// SHA-256 of the DKIM key that a check has read under this name; `None` if there is none.
    pub(super) fn key_digest(&self, name: &str) -> Option<[u8; 32]> {
        self.answer(as_asked(name).as_str())?.key_digest
    }

    fn answer<Q>(&self, name: &Q) -> Option<TxtAnswer>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.known.get(name).or_else(|| lock(&self.answers).get(name).cloned())
    }

    /// Has [`Dns::read`] read `name` before the check asks for it.
    pub(super) fn will_ask(&self, name: &str) {
        let name = as_asked(name);
        if self.get(name.as_str()).is_none() {
            lock(&self.unread).insert(name.into());
        }
    }
}

impl ResolverCache<Box<str>, Txt> for TxtRecords<'_> {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.answer(name).map(|answer| answer.txt)
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    /// mail-auth has looked up `name` and taken one of its records.
    fn insert(&self, name: Box<str>, _: Txt, _: Instant) {
        lock(&self.unread).insert(name);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name as mail-auth asks for it: with a final dot, in lower case.
fn as_asked(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_lowercase())
}

fn not_found() -> Txt {
    Txt::Error(Error::Dns(Answer::RecordNotFound(ResponseCode::NXDomain)))
}

/// Answers that mail-auth gets without a query.
#[derive(Default)]
struct Answers {
    dkim: Known<Box<str>, TxtAnswer>,
    dmarc: Known<Box<str>, TxtAnswer>,
    mx: Known<Box<str>, RecordSet<MX>>,
    a: Known<Box<str>, RecordSet<Ipv4Addr>>,
    aaaa: Known<Box<str>, RecordSet<Ipv6Addr>>,
}

impl Answers {
    fn of(zone: &Zone) -> Self {
        Self {
            dkim: all(zone, |published| records::key(&published.txt), not_found().into()),
            dmarc: all(zone, |published| records::dmarc(&published.txt), not_found().into()),
            mx: all(zone, mx, record_set(Vec::new())),
            a: all(zone, |records| record_set(records.a.clone()), record_set(Vec::new())),
            aaaa: all(zone, |records| record_set(records.aaaa.clone()), record_set(Vec::new())),
        }
    }
}

fn all<V>(zone: &Zone, answer: impl Fn(&Records) -> V, otherwise: V) -> Known<Box<str>, V> {
    let answers = zone.iter().map(|(name, records)| (name.into(), answer(records))).collect();
    Known { answers, otherwise: Some(otherwise) }
}

fn mx(records: &Records) -> RecordSet<MX> {
    let one = |(preference, name): &(u16, String)| MX {
        exchanges: Box::new([name.as_str().into()]),
        preference: *preference,
    };
    record_set(records.mx.iter().map(one).collect())
}

fn record_set<T>(records: Vec<T>) -> RecordSet<T> {
    RecordSet { rrset: Arc::from(records), dnssec_status: DnssecStatus::Indeterminate }
}

impl Lookup for Dns {
    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Unanswered> {
        let text = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()),
            _ => None,
        };
        self.records(name, RecordType::TXT, |records| records.txt.clone(), text).await
    }

    async fn a(&self, name: &str) -> Result<Vec<Ipv4Addr>, Unanswered> {
        let address = |data: &RData| if let RData::A(a) = data { Some(a.0) } else { None };
        self.records(name, RecordType::A, |records| records.a.clone(), address).await
    }

    async fn aaaa(&self, name: &str) -> Result<Vec<Ipv6Addr>, Unanswered> {
        let address = |data: &RData| if let RData::AAAA(aaaa) = data { Some(aaaa.0) } else { None };
        self.records(name, RecordType::AAAA, |records| records.aaaa.clone(), address).await
    }

    async fn mx(&self, name: &str) -> Result<Vec<String>, Unanswered> {
        let exchanger = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        };
        let mut exchangers =
            self.records(name, RecordType::MX, |records| records.mx.clone(), exchanger).await?;
        exchangers.sort_by_key(|(preference, _)| *preference);
        Ok(exchangers.into_iter().map(|(_, name)| without_dot(&name)).collect())
    }

    async fn ptr(&self, ip: IpAddr) -> Result<Vec<String>, Unanswered> {
        let name =
            |data: &RData| if let RData::PTR(ptr) = data { Some(without_dot(&ptr.to_ascii())) } else { None };
        // A zone has no such records.
        self.records(&Name::from(ip).to_ascii(), RecordType::PTR, |_| Vec::new(), name).await
    }

    async fn briefly<T: Send>(&self, work: impl Future<Output = T> + Send) -> Option<T> {
        tokio::time::timeout(self.timeout / 8, work).await.ok()
    }
}

impl Dns {
    /// What the zone has, or else what the servers answer.
    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        of_zone: impl Fn(&Records) -> Vec<T>,
        data: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Unanswered> {
        match &self.zone {
            Some(zone) => Ok(zone.get(name).map(of_zone).unwrap_or_default()),
            None => self.ask_servers(name, kind, data).await,
        }
    }

    /// What the servers answer, without what `data` does not take; empty if they say that there is nothing.
    async fn ask_servers<T>(
        &self,
        name: &str,
        kind: RecordType,
        data: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Unanswered> {
        let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
        // Of labels, because a local part in a macro may have any character. What cannot be asked for does not exist.
        let Ok(name) = Name::from_labels(labels) else { return Ok(Vec::new()) };
        match self.resolver.resolver().lookup(name, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| data(&record.data)).collect()),
            Err(error) => match Error::from(error) {
                Error::Dns(Answer::RecordNotFound(ResponseCode::NXDomain | ResponseCode::NoError)) => {
                    Ok(Vec::new())
                }
                _ => Err(Unanswered),
            },
        }
    }
}

fn without_dot(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

/// Answers by name, and one for all other names; without the latter, the resolver is asked.
pub(super) struct Known<K, V> {
    answers: HashMap<K, V>,
    otherwise: Option<V>,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { answers: HashMap::new(), otherwise: None }
    }
}

impl<K: Hash + Eq, V: Clone> ResolverCache<K, V> for Known<K, V> {
    fn get<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.answers.get(name).or(self.otherwise.as_ref()).cloned()
    }

    fn remove<Q>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: K, _: V, _: Instant) {}
}
