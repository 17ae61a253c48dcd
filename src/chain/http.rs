// SPDX-License-Identifier: Apache-2.0
//! Carries JSON-RPC over HTTP: web3's transport traits on reqwest, with a time limit and a maximum response size.
//!
//! The URL may contain a provider's key, so no error and no log shows it. Proxies from the environment are not used,
//! and redirects are not followed.
//!
//! There may be several nodes of one chain: if one cannot be reached, the next one stands in, and the first is tried again
//! after a while. A node that is to stand in is asked for its chain and whether it has all of it, so that none of another
//! chain and none that is still catching up does.
//!
//! Retries are left to the caller.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jsonrpc_core::{Call, Output, Request, Value};
use reqwest::{Client, Url, redirect::Policy};
use web3::{
    BatchTransport, RequestId, Transport,
    error::{Error, Result, TransportError},
    helpers::{build_request, to_result_from_output},
};

use crate::{Answer, LedgerError};

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The same if another node can be asked: whoever waits for an answer waits for both.
const TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(3);
/// For how long another node stands in before the first one is tried again.
const STAND_IN: Duration = Duration::from_secs(30);
/// Maximum size of a response in bytes.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Connection to one or more nodes of a chain; clones share its connections.
#[derive(Clone)]
pub struct Http {
    client: Client,
    nodes: Arc<[Node]>,
    /// Place of the node that is asked first.
    active: Arc<AtomicUsize>,
    /// When another than the first one was made that.
    standing_in: Arc<Mutex<Option<Instant>>>,
    /// What the first of several nodes that was asked said about its chain.
    chain: Arc<OnceLock<Value>>,
    requests: Arc<AtomicUsize>,
}

struct Node {
    url: Url,
    /// Whether it is known to be of the chain.
    is_of_chain: AtomicBool,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http")
    }
}

impl Http {
    /// Prepares requests to a node at `url` (`http:` or `https:`); does not connect yet.
    ///
    /// # Errors
    /// [`LedgerError::Endpoint`] if the URL or the client cannot be used.
    pub fn new(url: &str) -> std::result::Result<Self, LedgerError> {
        let endpoint = |rule: String| LedgerError::Endpoint { rule };
        let url: Url = url.parse().map_err(|why| endpoint(format!("a URL: {why}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(endpoint(format!("http or https, not {}", url.scheme())));
        }
        let client = Client::builder().redirect(Policy::none()).no_proxy();
        let client = client.build().map_err(|why| endpoint(why.without_url().to_string()))?;
        Ok(Self::of(client, vec![url]))
    }

    fn of(client: Client, urls: Vec<Url>) -> Self {
        let nodes = urls.into_iter().map(|url| Node { url, is_of_chain: AtomicBool::default() }).collect();
        let (active, standing_in) = (Arc::default(), Arc::default());
        Self { client, nodes, active, standing_in, chain: Arc::default(), requests: Arc::default() }
    }

    /// The same with another connection's nodes behind its own, which stand in for those.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let nodes = self.nodes.iter().chain(others.nodes.iter());
        Self::of(self.client.clone(), nodes.map(|node| node.url.clone()).collect())
    }

    /// Each node by itself: the one that answers at the moment, and all others.
    pub(super) fn split(&self) -> (Self, Vec<Self>) {
        let active = self.active.load(Ordering::Relaxed);
        let single = |place: usize| {
            let url = self.nodes.get(place).map(|node| node.url.clone());
            Self::of(self.client.clone(), url.into_iter().collect())
        };
        let others = (0..self.nodes.len()).filter(|place| *place != active).map(single);
        (single(active), others.collect())
    }

    /// Refuses plain `http://` to other hosts, unless it is allowed.
    ///
    /// # Errors
    /// [`LedgerError::Endpoint`], which says what must be.
    pub fn check_protected(&self, is_plain_allowed: bool) -> std::result::Result<(), LedgerError> {
        if is_plain_allowed || self.is_protected() {
            return Ok(());
        }
        let rule = "https, or http to this host, unless ethereum_plain_http is true".to_owned();
        Err(LedgerError::Endpoint { rule })
    }

    /// Whether nobody on the way can read or answer requests: they are encrypted, or stay on this host.
    fn is_protected(&self) -> bool {
        self.nodes.iter().all(|Node { url, .. }| {
            url.scheme() == "https"
                || url.host_str().is_some_and(|host| {
                    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
                })
        })
    }

    /// Posts a request to the node that answered last, or to the next one that can be reached.
    async fn post(self, request: Request) -> Result<Vec<u8>> {
        let start = self.start();
        let mut failure = None;
        for step in 0..self.nodes.len() {
            let place = (start + step) % self.nodes.len();
            let Some(node) = self.nodes.get(place) else { break };
            match self.ask(node, place, &request).await {
                Ok(body) => {
                    self.note(place);
                    return Ok(body);
                }
                // Whatever a node says is said; only for one that says nothing another is asked.
                Err(error @ Error::Transport(_)) => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or(Error::Unreachable))
    }

    /// Place of the node to begin with: the one that answered last, or the first one if that has been another for a while.
    fn start(&self) -> usize {
        let mut since = self.standing_in.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            Some(at) if at.elapsed() >= STAND_IN => {
                // If it does not answer, this is the time of the next attempt.
                *since = Some(Instant::now());
                0
            }
            _ => self.active.load(Ordering::Relaxed),
        }
    }

    /// Notes which node has answered.
    fn note(&self, place: usize) {
        if self.active.swap(place, Ordering::Relaxed) != place {
            let since = (place > 0).then(Instant::now);
            *self.standing_in.lock().unwrap_or_else(PoisonError::into_inner) = since;
            tracing::warn!(node = place + 1, "this node of the chain answers from now on");
        }
    }

    async fn ask(&self, node: &Node, place: usize, request: &Request) -> Result<Vec<u8>> {
        if self.nodes.len() > 1 {
            // A node that says anything else than an answer here is as good as none.
            let failed = |words: String| Error::Transport(TransportError::Message(words));
            let ask = async |method| {
                let asked = Request::Single(build_request(0, method, Vec::new()));
                result(&self.post_to(node, &asked).await?).map_err(|error| failed(error.to_string()))
            };
            if !node.is_of_chain.load(Ordering::Relaxed) {
                let chain = ask("eth_chainId").await?;
                let expected = self.chain.get_or_init(|| chain.clone());
                if chain != *expected {
                    return Err(failed(format!("node {} is of chain {chain}, not of {expected}", place + 1)));
                }
                node.is_of_chain.store(true, Ordering::Relaxed);
            }
            let is_new = self.active.load(Ordering::Relaxed) != place;
            if is_new && ask("eth_syncing").await? != Value::Bool(false) {
                return Err(failed(format!("node {} does not have all of the chain yet", place + 1)));
            }
        }
        self.post_to(node, request).await
    }

    async fn post_to(&self, node: &Node, request: &Request) -> Result<Vec<u8>> {
        let failed = |why: reqwest::Error| {
            let why = why.without_url();
            let source = std::error::Error::source(&why).map(|source| format!(": {source}"));
            Error::Transport(TransportError::Message(format!("{why}{}", source.unwrap_or_default())))
        };
        let limit = if self.nodes.len() > 1 { TIMEOUT_OF_SEVERAL } else { TIMEOUT };
        let posted = self.client.post(node.url.clone()).json(request).timeout(limit).send();
        let mut response = posted.await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(Error::Transport(TransportError::Code(response.status().as_u16())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                let rule = format!("longer than {MAX_RESPONSE_BYTES} bytes");
                return Err(Error::InvalidResponse(rule));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Transport for Http {
    type Out = Answer<Result<Value>>;

    fn prepare(&self, method: &str, params: Vec<Value>) -> (RequestId, Call) {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        (id, build_request(id, method, params))
    }

    fn send(&self, _id: RequestId, request: Call) -> Self::Out {
        let body = self.clone().post(Request::Single(request));
        Box::pin(async move { result(&body.await?) })
    }
}

impl BatchTransport for Http {
    type Batch = Answer<Result<Vec<Result<Value>>>>;

    fn send_batch<T: IntoIterator<Item = (RequestId, Call)>>(&self, requests: T) -> Self::Batch {
        let (ids, calls): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let body = self.clone().post(Request::Batch(calls));
        Box::pin(async move {
            let outputs: Vec<Output> = serde_json::from_slice(&body.await?)
                .map_err(|why| Error::InvalidResponse(format!("not a batch of JSON-RPC: {why}")))?;
            // A node may answer a batch in any order.
            let answer = |id: RequestId| {
                let mine = outputs.iter().find(|output| output.id() == &jsonrpc_core::Id::Num(id as u64));
                mine.cloned().map_or_else(
                    || Err(Error::InvalidResponse(format!("no answer to request {id} of the batch"))),
                    to_result_from_output,
                )
            };
            Ok(ids.into_iter().map(answer).collect())
        })
    }
}

/// The result in a response's body, or its error.
fn result(body: &[u8]) -> Result<Value> {
    let output: Output =
        serde_json::from_slice(body).map_err(|why| Error::InvalidResponse(format!("not JSON-RPC: {why}")))?;
    to_result_from_output(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_protected_on_this_host_only() {
        let is_protected = |url: &str| Http::new(url).unwrap().is_protected();
        for url in [
            "https://node.example",
            "http://127.0.0.1:8545",
            "http://127.1",
            "http://LOCALHOST:8545/path",
            "http://user:secret@[::1]:8545",
            "http://[::ffff:127.0.0.1]",
            "http://127.0.0.1\\@evil.example",
        ] {
            assert!(is_protected(url), "{url}");
        }
        for url in [
            "http://node.example",
            "http://192.0.2.1",
            "http://localhost.evil.example",
            "http://127.0.0.1@evil.example",
            "http://evil.example\\@127.0.0.1",
            "http://evil.example#@127.0.0.1",
            "http://[2001:db8::1]",
            "http://0.0.0.0",
        ] {
            assert!(!is_protected(url), "{url}");
        }
    }
}
