// SPDX-License-Identifier: Apache-2.0
//! Parameters that repeat for each name in a list, the way ROS users know from controllers and plugins:
//! `imap.accounts: [dispatch, claims]`, and then `imap.dispatch.host`, `imap.claims.host` and so on.

use std::collections::BTreeMap;

use super::{ParamError, Spec, Value, Values, own_values};

/// A list of names, and the parameters that each of them has.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The parameter that lists the names, a `string[]` in the node's table, as `imap.accounts`.
    pub names: &'static str,
    /// What comes before each name, as `imap`.
    pub prefix: &'static str,
    /// The parameters of each name; one named `host` is written `imap.dispatch.host`.
    pub members: &'static [Spec],
}

impl Group {
    /// Full name of a member's parameter.
    pub fn full_name(&self, member: &str, parameter: &str) -> String {
        format!("{}.{member}.{parameter}", self.prefix)
    }

    /// Takes those of `overrides` that belong to this group, and makes the values of each of its members.
    pub(super) fn resolve(
        &self,
        names: &[String],
        overrides: &mut BTreeMap<String, Value>,
    ) -> Result<Vec<(String, Values)>, ParamError> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        for (place, name) in names.iter().enumerate() {
            if !is_name(name) {
                let rule = format!("names of lower-case letters, digits and _, but one is {name:?}");
                return Err(ParamError::rule(self.names, format!("{names:?}"), rule));
            }
            if names.iter().take(place).any(|other| other == name) {
                let rule = format!("different names, but {name:?} is there twice");
                return Err(ParamError::rule(self.names, format!("{names:?}"), rule));
            }
        }
        let mut members = Vec::new();
        for name in names {
            let prefix = self.full_name(name, "");
            let mut own = BTreeMap::new();
            overrides.retain(|full, value| match full.strip_prefix(&prefix) {
                Some(parameter) => {
                    own.insert(parameter.to_owned(), value.clone());
                    false
                }
                None => true,
            });
            let resolved = own_values(self.members, own, &prefix)?;
            if let Some((parameter, value)) = resolved.foreign.first_key_value() {
                return Err(ParamError::Unknown {
                    name: format!("{prefix}{parameter}"),
                    value: value.to_string(),
                    why: format!("there is no parameter {parameter:?} of a name in '{}'", self.names),
                });
            }
            members.push((name.clone(), resolved));
        }
        // Other nodes have no parameters of this prefix. One without a name may be a misspelt list.
        let is_of_a_name = |full: &str| {
            full.strip_prefix(self.prefix)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| rest.contains('.'))
        };
        let stray = overrides.iter().find(|(full, _)| is_of_a_name(full));
        match stray {
            Some((full, value)) => Err(ParamError::Unknown {
                name: full.clone(),
                value: value.to_string(),
                why: format!("'{}' does not have its name", self.names),
            }),
            None => Ok(members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Default, Rule, resolve_groups};
    use super::*;

    const fn spec(name: &'static str, default: Default, rule: Rule) -> Spec {
        Spec { name, default, rule, unit: "", description: "" }
    }

    const SPECS: &[Spec] =
        &[spec("imap.accounts", Default::Texts(&[]), Rule::Any), spec("rate", Default::Int(1), Rule::Any)];
    const GROUPS: &[Group] = &[Group {
        names: "imap.accounts",
        prefix: "imap",
        members: &[
            spec("host", Default::Text(""), Rule::Any),
            spec("port", Default::Int(993), Rule::IntRange(1, 65535)),
        ],
    }];

    fn with(overrides: &[(&str, Value)]) -> Result<Values, ParamError> {
        let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        resolve_groups(SPECS, GROUPS, overrides.collect())
    }

    fn accounts(names: &[&str]) -> (&'static str, Value) {
        ("imap.accounts", Value::Texts(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn each_name_has_values_of_its_own() {
        let host = ("imap.claims.host", Value::Text("mail.example".into()));
        let values = with(&[accounts(&["dispatch", "claims"]), host]).unwrap();
        let members: Vec<_> = values.members("imap").collect();
        let hosts: Vec<_> =
            members.iter().map(|(name, values)| (*name, values.text("host").unwrap())).collect();
        assert_eq!(hosts, [("dispatch", String::new()), ("claims", "mail.example".to_owned())]);
        assert_eq!(members[0].1.int("port"), Ok(993));
        let names: Vec<_> = values.iter().map(|(name, _, _)| name).collect();
        assert_eq!(
            names,
            [
                "imap.accounts",
                "rate",
                "imap.dispatch.host",
                "imap.dispatch.port",
                "imap.claims.host",
                "imap.claims.port"
            ]
        );
    }

    #[test]
    fn says_which_parameter_of_which_name_is_wrong() {
        let error = |overrides: &[_]| with(overrides).unwrap_err().to_string();
        let text = |text: &str| Value::Text(text.to_owned());
        for (name, value, says) in [
            ("imap.dispatch.port", Value::Int(0), "'imap.dispatch.port' = 0: must be 1 to 65535"),
            ("imap.dispatch.port", text("x"), "'imap.dispatch.port' = \"x\": is of type string, must be int"),
            ("imap.dispatch.hots", text("x"), "unknown; did you mean 'imap.dispatch.host'?"),
            ("imap.dispatch.tls", text("x"), "there is no parameter \"tls\" of a name in 'imap.accounts'"),
            (
                "imap.claims.host",
                text("x"),
                "'imap.claims.host' = \"x\": unknown; 'imap.accounts' does not have its name",
            ),
        ] {
            let error = error(&[accounts(&["dispatch"]), (name, value)]);
            assert!(error.contains(says), "{error}");
        }
        assert!(error(&[("imap.account", text("a"))]).contains("did you mean 'imap.accounts'?"));
        assert!(error(&[accounts(&["a", "a"])]).contains("\"a\" is there twice"));
        assert!(error(&[accounts(&["a.b"])]).contains("but one is \"a.b\""));
    }
}
