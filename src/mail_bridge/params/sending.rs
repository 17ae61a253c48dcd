// SPDX-License-Identifier: Apache-2.0
//! The parameters that say how mails are handed to the smart host. Pure.

use std::path::PathBuf;

use settings::{ParamError, Values};

/// How mails are handed to the smart host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Whether to encrypt, and from when on.
    pub security: Security,
    /// Certificate authorities to trust; `None`: those of this host.
    pub ca_path: Option<PathBuf>,
}

/// How the connection to the smart host is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plaintext,
    /// By STARTTLS if the server offers it, whatever its certificate (RFC 7435); in clear if there is no TLS.
    Opportunistic,
    /// By STARTTLS, with a certificate that is trusted; never in clear.
    StartTls,
    /// From the first byte, with a certificate that is trusted.
    Tls,
}

impl Security {
    /// Whether only a server that proves its name gets anything.
    pub fn is_verified(self) -> bool {
        matches!(self, Self::StartTls | Self::Tls)
    }
}

impl Sending {
    pub(super) fn load(values: &Values) -> Result<Self, ParamError> {
        let security = match values.text("smarthost_security")?.as_str() {
            "none" => Security::Plaintext,
            "starttls" => Security::StartTls,
            "tls" => Security::Tls,
            _ => Security::Opportunistic,
        };
        let sending = Self { security, ca_path: path(values, "smarthost_ca_path")? };
        sending.validate()?;
        Ok(sending)
    }

    fn validate(&self) -> Result<(), ParamError> {
        if let Some(path) = &self.ca_path
            && !self.security.is_verified()
        {
            let rule =
                "empty unless smarthost_security is starttls or tls: otherwise no certificate is checked";
            return Err(ParamError::rule("smarthost_ca_path", path.display(), rule));
        }
        Ok(())
    }
}

fn path(values: &Values, name: &'static str) -> Result<Option<PathBuf>, ParamError> {
    Ok(Some(values.text(name)?).filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// Splits `host:port`; an IPv6 address has brackets around it.
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    super::is_graphic(bare).then_some((bare, port))
}

#[cfg(test)]
mod tests;
