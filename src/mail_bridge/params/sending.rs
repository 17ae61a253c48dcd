// SPDX-License-Identifier: Apache-2.0
//! The parameters that say to which smart host mails are handed, and how. Pure.

use std::{net::IpAddr, path::PathBuf};

use mail::EmailAddress;
use settings::{ParamError, Values};

/// To which smart hosts mails are handed, and how; all of them alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// `host:port` of the smart hosts, in the order in which they are tried; at least one.
    pub smarthosts: Vec<String>,
    /// Whether to encrypt, and from when on.
    pub security: Security,
    /// Certificate authorities to trust; `None`: those of this host.
    pub ca_path: Option<PathBuf>,
    /// How to log in; `None`: not at all.
    pub login: Option<Login>,
    /// How mails are signed; `None`: not at all.
    pub dkim: Option<Dkim>,
}

/// Whose signature mails get, and where its key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dkim {
    /// Selector: the key is published at `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// Domain that answers for the mails.
    pub domain: String,
    /// File of the private key (PEM).
    pub key_path: PathBuf,
}

/// A name, and where its password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Name.
    pub user: String,
    /// File whose first line is the password.
    pub password_path: PathBuf,
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
    /// Reads the parameters. `sender` is the From of mails that name none.
    pub(super) fn load(values: &Values, sender: &EmailAddress) -> Result<Self, ParamError> {
        let security = match values.text("smarthost_security")?.as_str() {
            "none" => Security::Plaintext,
            "starttls" => Security::StartTls,
            "tls" => Security::Tls,
            _ => Security::Opportunistic,
        };
        let ca_path = path(values, "smarthost_ca_path")?;
        let (login, dkim) = (login(values)?, dkim(values, sender)?);
        let sending = Self { smarthosts: smarthosts(values)?, security, ca_path, login, dkim };
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
        if let Some(login) = &self.login
            && !self.security.is_verified()
            && let Some(smarthost) = self.smarthosts.iter().find(|smarthost| !is_local(smarthost))
        {
            let rule = format!(
                "empty unless smarthost_security is starttls or tls: {smarthost} is not this host, and the password would be readable"
            );
            return Err(ParamError::rule("smarthost_user", &login.user, rule));
        }
        Ok(())
    }
}

fn path(values: &Values, name: &'static str) -> Result<Option<PathBuf>, ParamError> {
    Ok(Some(values.text(name)?).filter(|path| !path.is_empty()).map(PathBuf::from))
}

fn smarthosts(values: &Values) -> Result<Vec<String>, ParamError> {
    let mut all: Vec<String> = Vec::new();
    let fallbacks = values.texts("smarthost_fallbacks")?;
    let named = fallbacks.into_iter().map(|host| ("smarthost_fallbacks", host));
    for (name, host) in std::iter::once(("smarthost", values.text("smarthost")?)).chain(named) {
        if host_and_port(&host).is_none() {
            return Err(ParamError::rule(name, host, "host:port"));
        }
        if all.contains(&host) {
            return Err(ParamError::rule(name, host, "another smart host than those before it"));
        }
        all.push(host);
    }
    Ok(all)
}

fn login(values: &Values) -> Result<Option<Login>, ParamError> {
    const NAME: &str = "smarthost_user";
    let user = values.text(NAME)?;
    match (user.is_empty(), path(values, "smarthost_password_path")?) {
        (true, None) => Ok(None),
        (true, Some(_)) => Err(ParamError::rule(NAME, "\"\"", "set together with smarthost_password_path")),
        (false, None) => {
            Err(ParamError::rule("smarthost_password_path", "\"\"", "set together with smarthost_user"))
        }
        (false, Some(_)) if user.contains(char::is_control) => {
            Err(ParamError::rule(NAME, format!("{user:?}"), "a name without control characters"))
        }
        (false, Some(password_path)) => Ok(Some(Login { user, password_path })),
    }
}

fn dkim(values: &Values, sender: &EmailAddress) -> Result<Option<Dkim>, ParamError> {
    let names = ["dkim_selector", "dkim_domain", "dkim_key_path"];
    let [selector, domain, key_path] = names.map(|name| values.text(name));
    let (selector, domain, key_path) = (selector?, domain?, key_path?);
    let given = [!selector.is_empty(), !domain.is_empty(), !key_path.is_empty()];
    if given == [false; 3] {
        return Ok(None);
    }
    if let Some((name, _)) = names.iter().zip(given).find(|(_, given)| !given) {
        let rule = "set: dkim_selector, dkim_domain and dkim_key_path belong together";
        return Err(ParamError::rule(*name, "\"\"", rule));
    }
    for (name, text) in [("dkim_selector", &selector), ("dkim_domain", &domain)] {
        if !is_dns_name(text) {
            return Err(ParamError::rule(
                name,
                format!("{text:?}"),
                "a name of DNS, ASCII, without final dot",
            ));
        }
    }
    if !is_within(sender.domain(), &domain) {
        let rule = format!(
            "the domain of sender_address, {}, or one above it: otherwise the signature counts for nothing in DMARC",
            sender.domain()
        );
        return Err(ParamError::rule("dkim_domain", domain, rule));
    }
    Ok(Some(Dkim { selector, domain, key_path: key_path.into() }))
}

fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = (1..=63).contains(&label.len());
        fits && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a domain is another or below it.
fn is_within(domain: &str, above: &str) -> bool {
    let (domain, above) = (domain.to_ascii_lowercase(), above.to_ascii_lowercase());
    domain.strip_suffix(&above).is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

/// Whether a server by this name can only be on this host.
fn is_local(address: &str) -> bool {
    let Some((host, _)) = host_and_port(address) else { return false };
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
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
