// SPDX-License-Identifier: Apache-2.0
//! Carries JSON-RPC over HTTP: web3's transport traits on reqwest, with a time limit and a maximum response size.
//!
//! The URL may contain a provider's key, so no error and no log shows it. Proxies from the environment are not used,
//! and redirects are not followed.
//!
//! Retries are left to the caller.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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

/// Connection to a node at a URL; clones share its connections.
#[derive(Clone)]
pub struct Http {
    client: Client,
    url: Arc<Url>,
    requests: Arc<AtomicUsize>,
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
        Ok(Self { client, url: Arc::new(url), requests: Arc::default() })
    }

    /// Whether nobody on the way can read or answer requests: they are encrypted, or stay on this host.
    pub fn is_protected(&self) -> bool {
        self.url.scheme() == "https"
            || self.url.host_str().is_some_and(|host| {
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
            })
    }

    async fn post(self, request: Request) -> Result<Vec<u8>> {
        let failed = |why: reqwest::Error| {
            let why = why.without_url();
            let source = std::error::Error::source(&why).map(|source| format!(": {source}"));
            Error::Transport(TransportError::Message(format!("{why}{}", source.unwrap_or_default())))
        };
        let mut response =
            self.client.post(Url::clone(&self.url)).json(&request).send().await.map_err(failed)?;
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
        Box::pin(async move {
            let output: Output = serde_json::from_slice(&body.await?)
                .map_err(|why| Error::InvalidResponse(format!("not JSON-RPC: {why}")))?;
            to_result_from_output(output)
        })
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
