// SPDX-License-Identifier: Apache-2.0
//! A list of networks that an address is looked up in. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks, each an address or `address/prefix`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Parses the entries.
    ///
    /// # Errors
    /// The first entry that is not a network, as it was given, and the rule that it breaks.
    pub fn parse(entries: &[String]) -> Result<Self, (String, String)> {
        entries
            .iter()
            .map(|entry| network(entry).map_err(|rule| (entry.clone(), rule)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of them. An IPv4 address that is mapped into IPv6 MUST come as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn network(entry: &str) -> Result<IpNet, String> {
    let malformed = || "an IP address or a network like 192.0.2.0/24 or 2001:db8::/32".to_owned();
    let network = match entry.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => entry.parse().map_err(|_| malformed())?,
    };
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err("written as IPv4: clients with such addresses are taken for IPv4".to_owned());
    }
    if network != network.trunc() {
        return Err(format!("{}, if all of that network is meant", network.trunc()));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[&str]) -> Result<Networks, (String, String)> {
        Networks::parse(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_in_its_network_and_no_other() {
        let networks = parse(&["192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "::1"]).unwrap();
        for (address, inside) in [
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(parse(&["0.0.0.0/0"]).unwrap().contains([8, 8, 8, 8].into()));
        assert!(parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn an_entry_that_is_no_network_is_named_with_its_rule() {
        for (entry, rule) in [
            ("", "an IP address or"),
            ("gateway", "an IP address or"),
            ("10.0.0.0/33", "an IP address or"),
            ("10.0.0.0/", "an IP address or"),
            ("10.0.0.1/8", "10.0.0.0/8, if"),
            ("2001:db8::1/32", "2001:db8::/32, if"),
            ("::ffff:10.0.0.0/104", "written as IPv4"),
        ] {
            let (named, broken) = parse(&["::1", entry]).unwrap_err();
            assert_eq!(named, entry);
            assert!(broken.starts_with(rule), "{entry}: {broken}");
        }
    }
}
