// SPDX-License-Identifier: Apache-2.0
//! Carries JSON-RPC over HTTP: web3's transport traits on reqwest, with a time limit and a maximum response size.
//!
//! The URL may contain a provider's key, so no error and no log shows it. Proxies from the environment are not used,
//! and redirects are not followed.
//!
//! There may be several nodes of one chain: if the one that answered so far cannot be reached, the next one is asked, in a
//! circle. A node is asked for its chain first, so that none of another chain stands in.
//!
//! Retries are left to the caller.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
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
/// Maximum size of a response in bytes.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Connection to one or more nodes of a chain; clones share its connections.
#[derive(Clone)]
pub struct Http {
    client: Client,
    nodes: Arc<[Node]>,
    /// Place of the node that is asked first.
    active: Arc<AtomicUsize>,
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
        let client = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).no_proxy();
        let client = client.build().map_err(|why| endpoint(why.without_url().to_string()))?;
        Ok(Self::of(client, vec![url]))
    }

    fn of(client: Client, urls: Vec<Url>) -> Self {
        let nodes = urls.into_iter().map(|url| Node { url, is_of_chain: AtomicBool::default() }).collect();
        let (active, chain, requests) = (Arc::default(), Arc::default(), Arc::default());
        Self { client, nodes, active, chain, requests }
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

    /// Whether nobody on the way can read or answer requests: they are encrypted, or stay on this host.
    pub fn is_protected(&self) -> bool {
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
        let active = self.active.load(Ordering::Relaxed);
        let mut failure = None;
        for step in 0..self.nodes.len() {
            let place = (active + step) % self.nodes.len();
            let Some(node) = self.nodes.get(place) else { break };
            match self.ask(node, place, &request).await {
                Ok(body) => {
                    if step > 0 && self.active.swap(place, Ordering::Relaxed) != place {
                        tracing::warn!(node = place + 1, "another node of the chain stands in");
                    }
                    return Ok(body);
                }
                // Whatever a node says is said; only for one that says nothing another is asked.
                Err(error @ Error::Transport(_)) => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or(Error::Unreachable))
    }

    async fn ask(&self, node: &Node, place: usize, request: &Request) -> Result<Vec<u8>> {
        if self.nodes.len() > 1 && !node.is_of_chain.load(Ordering::Relaxed) {
            let asked = Request::Single(build_request(0, "eth_chainId", Vec::new()));
            let chain = result(&self.post_to(node, &asked).await?)?;
            let expected = self.chain.get_or_init(|| chain.clone());
            if chain != *expected {
                let words = format!("node {} is of chain {chain}, not of {expected}", place + 1);
                return Err(Error::Transport(TransportError::Message(words)));
            }
            node.is_of_chain.store(true, Ordering::Relaxed);
        }
        self.post_to(node, request).await
    }

    async fn post_to(&self, node: &Node, request: &Request) -> Result<Vec<u8>> {
        let failed = |why: reqwest::Error| {
            let why = why.without_url();
            let source = std::error::Error::source(&why).map(|source| format!(": {source}"));
            Error::Transport(TransportError::Message(format!("{why}{}", source.unwrap_or_default())))
        };
        let mut response = self.client.post(node.url.clone()).json(request).send().await.map_err(failed)?;
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
