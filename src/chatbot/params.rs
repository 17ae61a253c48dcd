// SPDX-License-Identifier: Apache-2.0
//! Defines and validates the parameters of chatbot.
//!
//! [`Params`] holds only values that are valid together; reading them from ROS is left to the runtime.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mail::EmailAddress;
use settings::{Default, ParamError, Rule, Spec, Values, drain_timeout};

/// All parameters, and the only place where their defaults are written.
pub const SPECS: &[Spec] = &[
    Spec {
        name: "human_mailbox",
        default: Default::Text("operator@localhost"),
        rule: Rule::NotEmpty,
        unit: "",
        description: "Address of the person who gets the mails that are not understood.",
    },
    Spec {
        name: "from_address",
        default: Default::Text("posthorn@localhost"),
        rule: Rule::NotEmpty,
        unit: "",
        description: "Address from which answers and forwards are sent; mail from it is ignored.",
    },
    Spec {
        name: "when_registry_unavailable",
        default: Default::Text("refuse"),
        rule: Rule::OneOf(&["refuse", "answer"]),
        unit: "",
        description: "What becomes of a question whose sender passed DMARC while the registry cannot be asked; orders are always refused.",
    },
    Spec {
        name: "stale_after_s",
        default: Default::Double(60.0),
        rule: Rule::DoubleRange(1.0, 86_400.0),
        unit: "s",
        description: "A value that is older is answered with a warning.",
    },
    Spec {
        name: "give_up_after_s",
        default: Default::Double(900.0),
        rule: Rule::DoubleRange(1.0, 604_800.0),
        unit: "s",
        description: "A mail received longer ago goes to a person if it is an order, or if vehicle_router does not answer.",
    },
    Spec {
        name: "capacity",
        default: Default::Int(64),
        rule: Rule::IntRange(1, 10_000),
        unit: "mails",
        description: "How many mails are worked on at once.",
    },
    Spec {
        name: "state_timeout_s",
        default: Default::Double(2.0),
        rule: Rule::DoubleRange(0.1, 60.0),
        unit: "s",
        description: "How long vehicle_router may take to answer.",
    },
    Spec {
        name: "acknowledgement_timeout_s",
        default: Default::Double(20.0),
        rule: Rule::DoubleRange(0.1, 600.0),
        unit: "s",
        description: "Time for a vehicle to acknowledge an order; then its sender and a person are told that it is not known to be carried out.",
    },
    Spec {
        name: "order_retry_s",
        default: Default::Double(1.0),
        rule: Rule::DoubleRange(0.05, 60.0),
        unit: "s",
        description: "Time after which an order is published again until it is acknowledged.",
    },
    Spec {
        name: "state_directory",
        default: Default::Text(""),
        rule: Rule::Any,
        unit: "",
        description: "Folder of the orders given and the order key; empty: posthorn/<namespace>/chatbot below the user's state folder.",
    },
    Spec {
        name: "order_key_path",
        default: Default::Text(""),
        rule: Rule::Any,
        unit: "",
        description: "File of the key that signs orders; empty: order.key in the state directory, made at the first start.",
    },
    drain_timeout(5.0),
];

/// The parameters of a running node, valid together.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Address of the person who gets the mails that are not understood, and the orders that are not carried out.
    pub human_mailbox: EmailAddress,
    /// Sender address of answers and forwards; mail from it is ignored.
    pub from_address: EmailAddress,
    /// Whether to answer questions of senders who passed DMARC while the registry cannot be asked.
    pub answers_without_registry: bool,
    /// Age above which a value is answered with a warning.
    pub stale_after: Duration,
    /// Age above which a mail goes to a person if it is an order, or if vehicle_router does not answer.
    pub give_up_after: Duration,
    /// Most mails in progress at once.
    pub capacity: usize,
    /// Longest wait for an answer of vehicle_router.
    pub state_timeout: Duration,
    /// Longest wait for a vehicle's acknowledgement of an order.
    pub acknowledgement_timeout: Duration,
    /// Interval at which an order is published again until it is acknowledged.
    pub order_retry: Duration,
    /// Directory for the orders given and, by default, the order key.
    pub state_directory: PathBuf,
    /// File with the key that signs orders.
    pub order_key_path: PathBuf,
}

impl Params {
    /// Builds the parameters from values that are each valid on their own. `state_directory` is the default for the
    /// parameter of that name.
    ///
    /// # Errors
    /// If an address is not valid, or two addresses that must differ are the same.
    pub fn load(values: &Values, state_directory: &Path) -> Result<Self, ParamError> {
        let path = |name, default: PathBuf| {
            let text = values.text(name)?;
            Ok::<_, ParamError>(if text.is_empty() { default } else { PathBuf::from(text) })
        };
        let state_directory = path("state_directory", state_directory.to_owned())?;
        let params = Self {
            human_mailbox: address(values, "human_mailbox")?,
            from_address: address(values, "from_address")?,
            answers_without_registry: values.text("when_registry_unavailable")? == "answer",
            stale_after: values.seconds("stale_after_s")?,
            give_up_after: values.seconds("give_up_after_s")?,
            capacity: values.count("capacity")?,
            state_timeout: values.seconds("state_timeout_s")?,
            acknowledgement_timeout: values.seconds("acknowledgement_timeout_s")?,
            order_retry: values.seconds("order_retry_s")?,
            order_key_path: path("order_key_path", state_directory.join("order.key"))?,
            state_directory,
        };
        if params.human_mailbox.is_same(&params.from_address) {
            let rule = "another address than from_address: a forward would come back";
            return Err(ParamError::rule("human_mailbox", format!("{:?}", params.human_mailbox), rule));
        }
        Ok(params)
    }
}

/// ASCII only, so that mails to and from it go through a smart host without SMTPUTF8.
fn address(values: &Values, name: &'static str) -> Result<EmailAddress, ParamError> {
    let text = values.text(name)?;
    EmailAddress::parse_ascii(&text).map_err(|error| {
        let rule = format!("an address, local-part@domain: {error}");
        ParamError::rule(name, format!("{text:?}"), rule)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::{Value, resolve};

    fn load(overrides: &[(&str, &str)]) -> Result<Params, ParamError> {
        let text = |&(name, value): &(&str, &str)| (name.to_owned(), Value::Text(value.to_owned()));
        Params::load(&resolve(SPECS, overrides.iter().map(text).collect())?, Path::new("/state"))
    }

    #[test]
    fn refuses_by_default_to_answer_without_the_registry() {
        assert!(!load(&[]).unwrap().answers_without_registry);
        assert!(load(&[("when_registry_unavailable", "answer")]).unwrap().answers_without_registry);
    }

    #[test]
    fn addresses_must_look_like_one() {
        for bad in ["operator", "@localhost", "a@", "ü@b", "a b@c", "A <a@b>", "a@b,c@d", "a@b\r\nBcc: c@d"]
        {
            let error = load(&[("human_mailbox", bad)]).unwrap_err().to_string();
            assert!(error.contains("must be an address, local-part@domain: "), "{error}");
        }
    }

    #[test]
    fn a_forward_must_not_come_back() {
        let error = load(&[("human_mailbox", "Posthorn@localhost")]).unwrap_err().to_string();
        assert!(error.contains("another address"), "{error}");
    }
}
