// SPDX-License-Identifier: Apache-2.0
//! The parameters that say who may hand in mails and how: TLS, accounts, clients and recipients. Pure.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use mail::AddressPattern;
use settings::{ParamError, Values};

use crate::networks::Networks;

/// Who may hand in mails, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Address of the SMTP server with TLS from the first byte; `None` turns it off.
    pub smtps_listen: Option<SocketAddr>,
    /// Certificate and key; `None` without TLS.
    pub tls: Option<Certificate>,
    /// Whether MAIL needs TLS, except from this host.
    pub require_tls: bool,
    /// File of the accounts; `None` without AUTH.
    pub auth_users_path: Option<PathBuf>,
    /// Whether MAIL on SMTP needs AUTH.
    pub require_auth: bool,
    /// Clients that may connect; empty: all.
    pub allowed_clients: Networks,
    /// Load balancers, whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol_from: Networks,
    /// Recipients that are accepted, besides `<postmaster>`; empty: all.
    pub accepted_recipients: Arc<[AddressPattern]>,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the server's own certificate first (PEM).
    pub certificate_path: PathBuf,
    /// Its private key (PEM).
    pub key_path: PathBuf,
}

impl Access {
    pub(super) fn load(values: &Values) -> Result<Self, ParamError> {
        let access = Self {
            smtps_listen: values.listen("smtps_listen")?,
            tls: certificate(values)?,
            require_tls: values.bool("require_tls")?,
            auth_users_path: Some(values.text("auth_users_path")?)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            require_auth: values.bool("require_auth")?,
            allowed_clients: networks(values, "allowed_clients")?,
            proxy_protocol_from: networks(values, "proxy_protocol_from")?,
            accepted_recipients: recipients(values)?,
        };
        access.validate(values.listen("smtp_listen")?, values.listen("lmtp_listen")?)?;
        Ok(access)
    }

    fn validate(&self, smtp: Option<SocketAddr>, lmtp: Option<SocketAddr>) -> Result<(), ParamError> {
        let off_loopback = |listen: &SocketAddr| !listen.ip().to_canonical().is_loopback();
        if let Some(listen) = lmtp.filter(off_loopback)
            && self.allowed_clients.is_empty()
        {
            let rule = "on loopback, like 127.0.0.1:2424, unless allowed_clients names the gateway: LMTP believes its client";
            return Err(ParamError::rule("lmtp_listen", listen, rule));
        }
        if self.require_auth && self.auth_users_path.is_none() {
            return Err(ParamError::rule("require_auth", true, "false without auth_users_path"));
        }
        if let Some(path) = &self.auth_users_path
            && self.tls.is_none()
            && smtp.is_some_and(|listen| off_loopback(&listen))
        {
            let rule =
                "empty without tls_certificate_path, or smtp_listen on loopback: nobody else could use AUTH";
            return Err(ParamError::rule("auth_users_path", path.display(), rule));
        }
        if self.tls.is_none() {
            let rule = "without tls_certificate_path";
            if let Some(listen) = self.smtps_listen {
                return Err(ParamError::rule("smtps_listen", listen, format!("empty {rule}")));
            }
            if self.require_tls {
                return Err(ParamError::rule("require_tls", true, format!("false {rule}")));
            }
        }
        Ok(())
    }
}

fn networks(values: &Values, name: &'static str) -> Result<Networks, ParamError> {
    Networks::parse(&values.texts(name)?)
        .map_err(|(entry, rule)| ParamError::rule(name, format!("{entry:?}"), rule))
}

/// What separates an extension from the name in a recipient.
pub(super) fn delimiter(values: &Values) -> Result<Option<char>, ParamError> {
    const NAME: &str = "recipient_delimiter";
    let text = values.text(NAME)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (Some(delimiter @ ('+' | '-' | '=' | '_')), None) => Ok(Some(delimiter)),
        _ => Err(ParamError::rule(NAME, format!("{text:?}"), "empty, or one of + - = _")),
    }
}

fn recipients(values: &Values) -> Result<Arc<[AddressPattern]>, ParamError> {
    const NAME: &str = "accepted_recipients";
    let delimiter = delimiter(values)?;
    let pattern = |text: &String| {
        let rule = "an address, local-part@domain, in which * is any text";
        AddressPattern::parse(text, delimiter)
            .ok_or_else(|| ParamError::rule(NAME, format!("{text:?}"), rule))
    };
    values.texts(NAME)?.iter().map(pattern).collect()
}

fn certificate(values: &Values) -> Result<Option<Certificate>, ParamError> {
    let (certificate, key) = (values.text("tls_certificate_path")?, values.text("tls_key_path")?);
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => {
            Ok(Some(Certificate { certificate_path: certificate.into(), key_path: key.into() }))
        }
        (false, true) => {
            Err(ParamError::rule("tls_key_path", "\"\"", "set together with tls_certificate_path"))
        }
        (true, false) => {
            Err(ParamError::rule("tls_certificate_path", "\"\"", "set together with tls_key_path"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use settings::{Value, resolve};

    use crate::params::{Params, SPECS};

    fn load(overrides: &[(&str, Value)]) -> Result<Params, String> {
        let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let values = resolve(SPECS, overrides.collect::<BTreeMap<_, _>>());
        values
            .and_then(|values| Params::load(&values, Path::new("/state")))
            .map_err(|error| error.to_string())
    }

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    fn texts(values: &[&str]) -> Value {
        Value::Texts(values.iter().map(|&value| value.to_owned()).collect())
    }

    #[test]
    fn lmtp_off_loopback_needs_to_know_its_clients() {
        for listen in ["0.0.0.0:2424", "[::]:2424", "192.0.2.1:0"] {
            let error = load(&[("lmtp_listen", text(listen))]).unwrap_err();
            assert!(
                error.starts_with(&format!("parameter 'lmtp_listen' = {listen}: must be on loopback")),
                "{error}"
            );
            assert!(error.contains("allowed_clients"), "{error}");
            let allowed = ("allowed_clients", texts(&["192.0.2.0/24"]));
            assert!(load(&[("lmtp_listen", text(listen)), allowed]).is_ok());
            assert!(load(&[("smtp_listen", text(listen))]).is_ok());
        }
        assert!(load(&[("lmtp_listen", text("[::ffff:127.0.0.1]:2424"))]).is_ok());
        assert_eq!(
            load(&[("allowed_clients", texts(&["10.0.0.1/8"]))]).unwrap_err(),
            "parameter 'allowed_clients' = \"10.0.0.1/8\": must be 10.0.0.0/8, if all of that network is meant"
        );
    }

    #[test]
    fn names_the_parameter_that_lacks_another() {
        let certificate = ("tls_certificate_path", text("/etc/cert.pem"));
        for (overrides, error) in [
            (
                &[certificate.clone()][..],
                "parameter 'tls_key_path' = \"\": must be set together with tls_certificate_path",
            ),
            (
                &[("tls_key_path", text("/etc/key.pem"))],
                "parameter 'tls_certificate_path' = \"\": must be set together with tls_key_path",
            ),
            (
                &[("smtps_listen", text("127.0.0.1:0"))],
                "parameter 'smtps_listen' = 127.0.0.1:0: must be empty without tls_certificate_path",
            ),
            (
                &[("require_tls", Value::Bool(true))],
                "parameter 'require_tls' = true: must be false without tls_certificate_path",
            ),
            (
                &[
                    certificate.clone(),
                    ("tls_key_path", text("/k")),
                    ("smtps_listen", text("127.0.0.1:2525")),
                ],
                "parameter 'smtps_listen' = 127.0.0.1:2525: must be another address than smtp_listen",
            ),
        ] {
            assert_eq!(load(overrides).unwrap_err(), error);
        }
        assert!(
            load(&[certificate, ("tls_key_path", text("/etc/key.pem")), ("require_tls", Value::Bool(true))])
                .is_ok()
        );
    }
}
