// SPDX-License-Identifier: Apache-2.0
//! The server's side: a certificate from files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use record_log::{
    reload::Reloading,
    secret::{self, SecretError},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of certificates cannot be read.
    #[error("certificate file '{path}': {source}", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// There is no certificate in the file.
    #[error("certificate file '{path}': no certificate in it (PEM)", path = .0.display())]
    Empty(PathBuf),
    /// The file of the key cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is no private key in the file.
    #[error("key file '{path}': no private key in it (PEM): {source}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// They do not belong together, or are of a kind that is not supported.
    #[error("certificate '{certificate}' with key '{key}': {source}", certificate = certificate.display(), key = key.display())]
    Unusable {
        /// The file of certificates.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

/// Begins TLS with clients.
pub struct Server {
    config: Reloading<ServerConfig, CertificateError>,
}

impl Server {
    /// A server with the chain of certificates in one file, its own first, and their key in another, both PEM. Others
    /// MUST NOT have access to the key's file.
    ///
    /// # Errors
    /// If the files cannot be used.
    pub fn new(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let paths = vec![certificate.to_owned(), key.to_owned()];
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let load = move || read(&certificate, &key);
        Ok(Self { config: Reloading::new(paths, load, Instant::now())? })
    }

    /// Begins TLS on `stream`, with the certificate as it is in the files now. The caller MUST bound the time.
    ///
    /// # Errors
    /// If the client speaks something else, trusts no such certificate, or is gone.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config.current(Instant::now());
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Why the files cannot be used since they were changed, while the certificate before them is still in use. Looks
    /// at them, so that the reason is known before a client comes.
    pub fn failure(&self) -> Option<String> {
        self.config.current(Instant::now());
        self.config.failure()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let bad = |source| CertificateError::Certificate { path: certificate.to_owned(), source };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).map_err(bad)?.collect();
    let chain = chain.map_err(bad)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(certificate.to_owned()));
    }
    let text = secret::read_text(key)?;
    let secret = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|source| CertificateError::Key { path: key.to_owned(), source })?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|source| {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            CertificateError::Unusable { certificate, key, source }
        })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::client::Client;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self { directory: tempfile::tempdir().unwrap() };
            files.renew();
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).unwrap();
        }

        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            self.write("cert.pem", &made.cert.pem());
            self.write("key.pem", &made.signing_key.serialize_pem());
        }

        fn server(&self) -> Result<Server, String> {
            Server::new(&self.path("cert.pem"), &self.path("key.pem")).map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn talks_to_a_client_that_trusts_the_certificate() {
        let files = Files::new();
        let server = files.server().unwrap();
        let (near, far) = duplex(1 << 16);
        let client = Client::new(Some(&files.path("cert.pem"))).unwrap();
        let talk = async {
            let mut stream = client.connect("localhost", near).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let hear = async {
            let mut heard = [0; 5];
            let mut stream = server.accept(far).await.unwrap();
            stream.read_exact(&mut heard).await.unwrap();
            (heard, stream)
        };
        let (_client, (heard, _server)) = tokio::join!(talk, hear);
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_gets_an_error_and_no_panic() {
        let server = Files::new().server().unwrap();
        for garbage in [&b"EHLO c.test\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 0], &[0; 64], b""] {
            let (mut near, far) = duplex(1 << 16);
            near.write_all(garbage).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(server.accept(far).await.is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
        let files = Files::new();
        let server = files.server().unwrap();
        let later = |seconds| Instant::now() + std::time::Duration::from_secs(seconds);
        let first = server.config.current(later(10));
        files.renew();
        let second = server.config.current(later(20));
        assert!(!Arc::ptr_eq(&first, &second));
        files.write("cert.pem", "nothing");
        assert!(Arc::ptr_eq(&second, &server.config.current(later(30))));
        assert!(server.config.failure().unwrap().ends_with("no certificate in it (PEM)"));
        files.renew();
        assert!(!Arc::ptr_eq(&second, &server.config.current(later(40))));
        assert_eq!(server.config.failure(), None);
    }

    #[test]
    fn names_the_file_and_what_is_wrong_with_it() {
        let broken = |change: &dyn Fn(&Files)| {
            let files = Files::new();
            change(&files);
            files.server().err().unwrap()
        };
        let error = broken(&|files| fs::remove_file(files.path("cert.pem")).unwrap());
        assert!(error.contains("cert.pem'") && error.contains("No such file"), "{error}");
        let error = broken(&|files| fs::remove_file(files.path("key.pem")).unwrap());
        assert!(error.contains("key.pem'"), "{error}");
        let error = broken(&|files| files.write("key.pem", "secret"));
        assert!(error.contains("no private key in it") && !error.contains("secret"), "{error}");
        let error = broken(&|files| {
            fs::set_permissions(files.path("key.pem"), PermissionsExt::from_mode(0o640)).unwrap();
        });
        assert!(error.contains("has mode 640"), "{error}");
        let error = broken(&|files| {
            let other = Files::new();
            fs::copy(other.path("key.pem"), files.path("key.pem")).unwrap();
        });
        assert!(error.contains("cert.pem' with key") && error.contains("KeyMismatch"), "{error}");
    }
}
