// SPDX-License-Identifier: Apache-2.0
//! The client's side: connects to servers whose certificate this host trusts, or to any ([`Client::unverified`]).

mod unverified;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The authorities to trust cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of certificates cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no usable certificate in the file.
    #[error("{0}: no certificate in it (PEM)")]
    Empty(PathBuf),
    /// This host trusts nobody.
    #[error(
        "this host has no certificate authorities: install the package ca-certificates, or name a file of them"
    )]
    NoAuthorities,
}

/// No encrypted connection with a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server is to be reached by a name that no certificate can have.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// The server's certificate is not for this name, expired, or from an authority that is not trusted.
    #[error("the certificate of {host} is refused: {reason}")]
    Certificate {
        /// The server.
        host: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The server speaks another protocol, or the connection was lost.
    #[error("no TLS with {host}: {source}")]
    Handshake {
        /// The server.
        host: String,
        /// The first thing that went wrong.
        source: io::Error,
    },
}

/// Connects to servers; clones share what they trust and the sessions to be resumed.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
}

impl Client {
    /// Trusts the certificate authorities of `ca_path` (PEM) alone, or those of this host.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(ca_path: Option<&Path>) -> Result<Self, TrustError> {
        let roots = match ca_path {
            Some(path) => authorities(path)?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TrustError::NoAuthorities);
                }
                roots
            }
        };
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Takes any certificate: encryption without authentication (RFC 7435), against those who only listen. Whoever is in
    /// between can read all of it, so no password may be sent.
    pub fn unverified() -> Self {
        let verifier = Arc::new(unverified::AnyCertificate::default());
        let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
        Self { connector: TlsConnector::from(Arc::new(config.with_no_client_auth())) }
    }

    /// Begins TLS on `stream` with the server `host`, a name or an IP address.
    ///
    /// # Errors
    /// If the server's certificate is not to be trusted for this name, or there is no TLS.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_: InvalidDnsNameError| ConnectError::Name(host.to_owned()))?;
        self.connector.connect(name, stream).await.map_err(|error| refused(host, error))
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TrustError> {
    let read = |source| TrustError::Read { path: path.to_owned(), source };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.map_err(read)?);
    if roots.is_empty() { Err(TrustError::Empty(path.to_owned())) } else { Ok(roots) }
}

/// What a person can do something about, of a failed handshake.
fn refused(host: &str, error: io::Error) -> ConnectError {
    let host = host.to_owned();
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let reason = match why {
                // The latter is an authority of a name that is trusted, with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "it is from an authority that this host does not trust; if it is your own, name its file"
                        .to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    format!("it has expired, or this host's clock is wrong ({why})")
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("it is for another name ({why})")
                }
                other => other.to_string(),
            };
            ConnectError::Certificate { host, reason }
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            let source =
                io::Error::other("the server answers with something else; is this the port for TLS?");
            ConnectError::Handshake { host, source }
        }
        _ => ConnectError::Handshake { host, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server for `localhost` on one end of a pipe; returns its certificate as PEM, and the other end.
    fn server() -> (String, tokio::io::DuplexStream) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let (near, far) = duplex(1 << 16);
        tokio::spawn(async move {
            let _ = TlsAcceptor::from(Arc::new(config)).accept(far).await;
        });
        (made.cert.pem(), near)
    }

    async fn connect(trusted: Option<&str>, host: &str) -> Result<(), String> {
        let (pem, stream) = server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, trusted.unwrap_or(&pem)).unwrap();
        let client = Client::new(Some(&path)).map_err(|error| error.to_string())?;
        client.connect(host, stream).await.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn trusts_the_named_authority_for_the_servers_own_name_only() {
        assert_eq!(connect(None, "localhost").await, Ok(()));
        let error = connect(None, "mail.example").await.unwrap_err();
        assert!(
            error.starts_with("the certificate of mail.example is refused: it is for another name"),
            "{error}"
        );
        let (other, _) = server();
        let error = connect(Some(&other), "localhost").await.unwrap_err();
        assert!(error.contains("authority that this host does not trust"), "{error}");
    }

    #[tokio::test]
    async fn takes_any_certificate_only_when_that_is_asked_for() {
        let (_, stream) = server();
        assert!(Client::unverified().connect("mail.example", stream).await.is_ok());
        let (near, mut far) = duplex(1024);
        far.write_all(b"220 not TLS\r\n").await.unwrap();
        assert!(Client::unverified().connect("mail.example", near).await.is_err());
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_file_a_name_or_a_port() {
        let error = connect(Some("nothing"), "localhost").await.unwrap_err();
        assert!(error.ends_with("no certificate in it (PEM)"), "{error}");
        assert!(Client::new(Some(Path::new("/nowhere"))).is_err());
        let error = connect(None, "not a name").await.unwrap_err();
        assert!(error.contains("neither a host name nor an IP address"), "{error}");
        let (pem, _) = server();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, pem).unwrap();
        let (near, mut far) = duplex(1024);
        far.write_all(b"* OK Dovecot ready.\r\n").await.unwrap();
        let error = Client::new(Some(&path)).unwrap().connect("localhost", near).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("is this the port for TLS?"), "{error}");
    }
}
