// SPDX-License-Identifier: Apache-2.0
//! Serves the embedded chain's JSON-RPC 2.0 over HTTP/1.1: `POST` of one request or a batch, as go-ethereum does.
//!
//! Whoever has a shell on this host may ask and send transactions; only the ledger's account can pay for one. A page in
//! somebody's browser MUST reach nothing: the content type must be `application/json`, which a browser does not send
//! to another origin unasked, and the host must be a loopback one, which a rebound DNS name is not.
//!
//! What a method does is up to `rpc`.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpc_core::{Call, Error, ErrorCode, Id, Output, Value, Version};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::embedded::{EmbeddedChain, rpc};

/// Connections at a time; others wait until one of them ends.
const MAX_CONNECTIONS: usize = 64;
/// Maximum size of a request in bytes; a transaction of a full block has less.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// Maximum number of requests in a batch, as in go-ethereum.
const MAX_BATCH: usize = 1000;
/// Size of a response in bytes beyond which the rest of a batch is refused, as in go-ethereum.
const MAX_RESPONSE_BYTES: usize = 25_000_000;
/// Time for a request's head, and again for its body.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for all requests of a batch; the rest is refused.
const BATCH_TIME: Duration = Duration::from_secs(5);
/// Requests that are answered at a time. Whoever goes away does not stop the answer under way.
const MAX_ANSWERS: usize = 2;
/// Time after which a connection is closed, however busy it is, so that nobody keeps a place by not reading.
const CONNECTION_TIME: Duration = Duration::from_secs(600);
/// Pause after a failed `accept`, which is usually due to a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub(super) async fn run(chain: EmbeddedChain, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let answers = Arc::new(Semaphore::new(MAX_ANSWERS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (chain, answers) = (chain.clone(), Arc::clone(&answers));
                connections.spawn(async move {
                    let _place = place;
                    serve(chain, answers, stream).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(chain: EmbeddedChain, answers: Arc<Semaphore>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let (chain, answers) = (chain.clone(), Arc::clone(&answers));
        async move { Ok::<_, Infallible>(answer(&chain, answers, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let served = match timeout(CONNECTION_TIME, connection.as_mut()).await {
        Ok(served) => served,
        Err(_) => {
            // The request under way is still answered, if the client reads the answer.
            connection.as_mut().graceful_shutdown();
            timeout(TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection lost");
    }
}

async fn answer(
    chain: &EmbeddedChain,
    answers: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if let Err((status, rule)) = admit(&request) {
        return response(status, "text/plain", format!("{rule}\n"));
    }
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
    let body = match timeout(TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            let text =
                format!("the request is cut short or longer than {MAX_REQUEST_BYTES} bytes: {error}\n");
            return response(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", text);
        }
        Err(_) => {
            let text = format!("the request took longer than {TIMEOUT:?}\n");
            return response(StatusCode::REQUEST_TIMEOUT, "text/plain", text);
        }
    };
    let permit = answers.acquire_owned().await;
    let work = move |chain: &EmbeddedChain| {
        let _permit = permit;
        respond(chain, &body)
    };
    match chain.blocking(work).await {
        Ok(Some(text)) => response(StatusCode::OK, "application/json", text),
        Ok(None) => response(StatusCode::NO_CONTENT, "application/json", ""),
        Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the request failed\n"),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Whether a program on this host may have sent the request, and not a browser for a page.
fn admit<B>(request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "the method must be POST"));
    }
    let media_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"));
    }
    if !is_loopback(header(HOST)) {
        return Err((StatusCode::FORBIDDEN, "the host must be localhost or a loopback address"));
    }
    Ok(())
}

/// Whether the value of a `Host` field, with or without a port, is this host's.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Answers the body of a request; `None` if it has nothing but notifications. Blocking.
fn respond(chain: &EmbeddedChain, body: &[u8]) -> Option<Vec<u8>> {
    let failed = |error| Some(encode(&Output::from(Err(error), Id::Null, Some(Version::V2))));
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return failed(Error::new(ErrorCode::ParseError));
    };
    let Value::Array(calls) = request else { return respond_to(chain, request) };
    if calls.is_empty() {
        return failed(rpc::error(-32600, "empty batch"));
    }
    if calls.len() > MAX_BATCH {
        return failed(rpc::error(-32600, format!("batch too large: at most {MAX_BATCH} requests")));
    }
    let (mut text, began) = (Vec::new(), Instant::now());
    for call in calls {
        let answer = match (text.len() > MAX_RESPONSE_BYTES, began.elapsed() > BATCH_TIME) {
            (true, _) => refuse(call, rpc::error(-32003, "response too large")),
            (_, true) => refuse(call, rpc::error(-32002, "request timed out")),
            _ => respond_to(chain, call),
        };
        let Some(answer) = answer else { continue };
        text.push(if text.is_empty() { b'[' } else { b',' });
        text.extend(answer);
    }
    if text.is_empty() {
        return None;
    }
    text.push(b']');
    Some(text)
}

/// Answers one call; `None` if it is a notification.
fn respond_to(chain: &EmbeddedChain, call: Value) -> Option<Vec<u8>> {
    answer_with(call, |call| chain.answer(call))
}

/// Answers one call of a batch that has had its share.
fn refuse(call: Value, error: Error) -> Option<Vec<u8>> {
    answer_with(call, |_| Err(error))
}

fn answer_with(
    call: Value,
    answer: impl FnOnce(&jsonrpc_core::MethodCall) -> Result<Value, Error>,
) -> Option<Vec<u8>> {
    let output = match serde_json::from_value(call) {
        Ok(Call::MethodCall(call)) => Output::from(answer(&call), call.id, Some(Version::V2)),
        Ok(Call::Notification(_)) => return None,
        Ok(Call::Invalid { id }) => Output::invalid_request(id, Some(Version::V2)),
        Err(_) => Output::invalid_request(Id::Null, Some(Version::V2)),
    };
    Some(encode(&output))
}

fn encode(output: &Output) -> Vec<u8> {
    // serde_json has no error for JSON in memory.
    serde_json::to_vec(output).unwrap_or_default()
}
