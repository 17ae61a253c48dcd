// SPDX-License-Identifier: Apache-2.0
//! Connects to a smart host: TCP, TLS, EHLO, AUTH.
//!
//! - A password goes only to a server that has proved its name, or is on this host.
//! - Where TLS is required nothing but EHLO and STARTTLS goes in clear; a server that does not offer it counts as away.
//! - Each step takes `smarthost_timeout_s` at most.

use std::{path::PathBuf, sync::Arc, time::Duration};

use record_log::secret::{SecretError, read_text};
use smtp::client::{Client, ClientError};
use tls::client::TrustError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::dkim::{KeyError, Signer};
use crate::params::{Login, Params, Security, host_and_port};

/// What a session runs over: TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection to the smart host, ready for mails.
pub(super) type Connection = Client<Box<dyn Stream>>;

/// Nothing can be sent, whatever the smart hosts do.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nobody is trusted for its certificate.
    #[error("parameter 'smarthost_ca_path': {0}")]
    Trust(#[from] TrustError),
    /// There is no password to log in with.
    #[error("parameter 'smarthost_password_path': {0}")]
    Password(#[from] NoPassword),
    /// There is no key to sign with.
    #[error("parameter 'dkim_key_path': {0}")]
    Key(#[from] KeyError),
}

/// There is no password to log in with.
#[derive(Debug, thiserror::Error)]
pub enum NoPassword {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretError),
    /// The file has no password.
    #[error("{path}: its first line is empty", path = .0.display())]
    Empty(PathBuf),
    /// Nobody has read the file, because the node ends.
    #[error("{path}: was not read", path = .0.display())]
    Unread(PathBuf),
}

/// There is no connection to the smart host.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("smart host: {0}")]
    Tls(#[from] tls::client::ConnectError),
    #[error("smart host: no TLS within {0:?}")]
    TlsTimeout(Duration),
    #[error("smart host: it offers no STARTTLS, which smarthost_security requires")]
    NoStartTls,
    #[error("smart host: {0}")]
    Password(#[from] NoPassword),
    #[error(
        "smart host: {0} is not this host, and without smarthost_security starttls or tls it gets no password"
    )]
    Unprotected(String),
}

impl ConnectError {
    /// Whether the server refused name and password, and will again.
    pub(super) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Client(ClientError::Login { for_good: true, .. }))
    }

    /// Whether there is no TLS, though the server has offered it.
    fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsTimeout(_) | Self::Client(ClientError::StartTls(_)))
    }
}

/// The smart hosts, how to reach them, and how to sign what they get.
pub(super) struct Relay {
    pub(super) params: Arc<Params>,
    /// Signs what is sent; `None` without DKIM.
    pub(super) signer: Option<Signer>,
    tls: tls::client::Client,
}

impl Relay {
    pub(super) fn new(params: Arc<Params>) -> Result<Self, RelayError> {
        let sending = &params.sending;
        let tls = if sending.security.is_verified() {
            tls::client::Client::new(sending.ca_path.as_deref())?
        } else {
            tls::client::Client::unverified()
        };
        if let Some(login) = &sending.login {
            password(login)?;
        }
        let signer = sending.dkim.as_ref().map(Signer::new).transpose()?;
        Ok(Self { params, signer, tls })
    }

    /// Address of the smart host at this place in the order.
    pub(super) fn address(&self, host: usize) -> &str {
        self.params.sending.smarthosts.get(host).map_or("", String::as_str)
    }

    /// Connects to the smart host at this place in the order, says EHLO, and logs in if there is a name for that.
    pub(super) async fn connect(&self, host: usize) -> Result<Connection, ConnectError> {
        let address = self.address(host);
        let security = self.params.sending.security;
        let connected = self.dial(address, security).await;
        match connected {
            Err(error) if security == Security::Opportunistic && error.is_tls() => {
                tracing::warn!(smarthost = address, %error, "TLS fails, goes on in clear");
                self.dial(address, Security::Plaintext).await
            }
            connected => connected,
        }
    }

    async fn dial(&self, address: &str, security: Security) -> Result<Connection, ConnectError> {
        let limit = self.params.smarthost_timeout;
        let connected = timeout(limit, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| ClientError::Timeout(limit))?.map_err(ClientError::Io)?;
        // Commands are small: with Nagle's algorithm each would take another 40 ms.
        stream.set_nodelay(true).map_err(ClientError::Io)?;
        let is_local = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let host = host_and_port(address).map_or(address, |(host, _)| host);
        let mut client = self.open(host, Box::new(stream), security).await?;
        if let Some(login) = &self.params.sending.login {
            if !security.is_verified() && !is_local {
                return Err(ConnectError::Unprotected(host.to_owned()));
            }
            let (of, path) = (login.clone(), login.password_path.clone());
            let read = tokio::task::spawn_blocking(move || password(&of)).await;
            client.log_in(&login.user, &read.unwrap_or(Err(NoPassword::Unread(path)))?).await?;
        }
        Ok(client)
    }

    /// Begins a session on `stream` with the server `host`.
    async fn open(
        &self,
        host: &str,
        stream: Box<dyn Stream>,
        security: Security,
    ) -> Result<Connection, ConnectError> {
        let (hostname, limit) = (&self.params.hostname, self.params.smarthost_timeout);
        if security == Security::Tls {
            let stream = self.encrypt(host, stream).await?;
            return Ok(Client::greet(stream, hostname, limit).await?);
        }
        let client = Client::greet(stream, hostname, limit).await?;
        if security == Security::Plaintext {
            return Ok(client);
        }
        if !client.offers_starttls() {
            let is_required = security == Security::StartTls;
            return if is_required { Err(ConnectError::NoStartTls) } else { Ok(client) };
        }
        let stream = self.encrypt(host, client.start_tls().await?).await?;
        Ok(Client::after_tls(stream, hostname, limit).await?)
    }

    async fn encrypt(&self, host: &str, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, ConnectError> {
        let limit = self.params.smarthost_timeout;
        let encrypted = timeout(limit, self.tls.connect(host, stream)).await;
        Ok(Box::new(encrypted.map_err(|_| ConnectError::TlsTimeout(limit))??))
    }
}

/// Reads the password, which may have been changed.
fn password(login: &Login) -> Result<String, NoPassword> {
    let text = read_text(&login.password_path)?;
    let first = text.lines().next().filter(|line| !line.is_empty());
    first.map(str::to_owned).ok_or_else(|| NoPassword::Empty(login.password_path.clone()))
}

#[cfg(test)]
mod tests;
