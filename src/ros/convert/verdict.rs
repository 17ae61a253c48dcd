// SPDX-License-Identifier: Apache-2.0
//! Converts `Verdict` and `AuthenticatedMail`.

use std::time::SystemTime;

use mail::{AuthResult, Mail, Registration, Role, Verdict};

use super::{ConvertError, error, mail_from_ros, mail_to_ros, time_to_ros};
use crate::msg;

/// Converts a mail and its verdict to a message.
pub fn authenticated_to_ros(mail: &Mail, verdict: &Verdict, now: SystemTime) -> msg::AuthenticatedMail {
    msg::AuthenticatedMail {
        stamp: time_to_ros(now),
        mail: mail_to_ros(mail),
        verdict: msg::Verdict {
            spf: verdict.spf as u8,
            dkim: verdict.dkim as u8,
            dmarc: verdict.dmarc as u8,
            arc: verdict.arc as u8,
            arc_domain: verdict.arc_domain.clone(),
            dkim_domain: verdict.dkim_domain.clone(),
            dkim_selector: verdict.dkim_selector.clone(),
            order_covered: verdict.order_covered,
            order_gap: verdict.order_gap.clone(),
            registry: verdict.registry as u8,
            role: verdict.role as u8,
            authenticated: verdict.authenticated,
            reason: verdict.reason.clone(),
        },
    }
}

/// Converts a message to a mail and its verdict.
///
/// # Errors
/// Names the field that violates its specification. A verdict that contradicts itself is an error.
pub fn authenticated_from_ros(message: &msg::AuthenticatedMail) -> Result<(Mail, Verdict), ConvertError> {
    let verdict = Verdict {
        spf: result_from_ros("verdict.spf", message.verdict.spf)?,
        dkim: result_from_ros("verdict.dkim", message.verdict.dkim)?,
        dmarc: result_from_ros("verdict.dmarc", message.verdict.dmarc)?,
        arc: result_from_ros("verdict.arc", message.verdict.arc)?,
        arc_domain: message.verdict.arc_domain.clone(),
        dkim_domain: message.verdict.dkim_domain.clone(),
        dkim_selector: message.verdict.dkim_selector.clone(),
        order_covered: message.verdict.order_covered,
        order_gap: message.verdict.order_gap.clone(),
        registry: registration_from_ros(message.verdict.registry)?,
        role: role_from_ros("verdict.role", message.verdict.role)?,
        authenticated: message.verdict.authenticated,
        reason: message.verdict.reason.clone(),
    };
    let proven = verdict.is_proven() && verdict.registry == Registration::Active;
    if verdict.authenticated && !proven {
        return Err(error(
            "verdict.authenticated",
            true,
            "false unless DMARC or ARC passed and the sender is active",
        ));
    }
    Ok((mail_from_ros(&message.mail)?, verdict))
}

fn result_from_ros(field: &'static str, value: u8) -> Result<AuthResult, ConvertError> {
    use AuthResult::{Fail, Neutral, None, Pass, PermError, SoftFail, TempError, Unknown};
    [Unknown, None, Pass, Fail, SoftFail, Neutral, TempError, PermError]
        .into_iter()
        .find(|result| *result as u8 == value)
        .ok_or_else(|| error(field, value, "one of the results of Verdict.msg"))
}

fn registration_from_ros(value: u8) -> Result<Registration, ConvertError> {
    Registration::ALL
        .into_iter()
        .find(|registration| *registration as u8 == value)
        .ok_or_else(|| error("verdict.registry", value, "one of REGISTRY_*"))
}

/// Converts a number from a message to a role.
///
/// # Errors
/// Names `field` if the value is none of `Verdict.ROLE_*`.
pub fn role_from_ros(field: &'static str, value: u8) -> Result<Role, ConvertError> {
    Role::ALL
        .into_iter()
        .find(|role| *role as u8 == value)
        .ok_or_else(|| error(field, value, "one of ROLE_*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_message() {
        let pairs = [
            (msg::Verdict::UNKNOWN as u8, AuthResult::Unknown),
            (msg::Verdict::NONE as u8, AuthResult::None),
            (msg::Verdict::PASS as u8, AuthResult::Pass),
            (msg::Verdict::FAIL as u8, AuthResult::Fail),
            (msg::Verdict::SOFTFAIL as u8, AuthResult::SoftFail),
            (msg::Verdict::NEUTRAL as u8, AuthResult::Neutral),
            (msg::Verdict::TEMPERROR as u8, AuthResult::TempError),
            (msg::Verdict::PERMERROR as u8, AuthResult::PermError),
        ];
        for (number, result) in pairs {
            assert_eq!(result_from_ros("", number), Ok(result));
        }
        assert_eq!(registration_from_ros(msg::Verdict::REGISTRY_ACTIVE as u8), Ok(Registration::Active));
        assert_eq!(registration_from_ros(msg::Verdict::REGISTRY_REVOKED as u8), Ok(Registration::Revoked));
        assert_eq!(
            registration_from_ros(msg::Verdict::REGISTRY_UNAVAILABLE as u8),
            Ok(Registration::Unavailable)
        );
        let not_now = registration_from_ros(msg::Verdict::REGISTRY_NOT_VALID_NOW as u8);
        assert_eq!(not_now, Ok(Registration::NotValidNow));
        let other_key = registration_from_ros(msg::Verdict::REGISTRY_OTHER_KEY as u8);
        assert_eq!(other_key, Ok(Registration::OtherKey));
        assert!(registration_from_ros(7).is_err());
        assert_eq!(role_from_ros("", msg::Verdict::ROLE_OPERATOR as u8), Ok(Role::Operator));
        assert_eq!(
            role_from_ros("role", 9).unwrap_err().to_string(),
            "field 'role' = 9: must be one of ROLE_*"
        );
    }

    #[test]
    fn a_verdict_that_contradicts_itself_is_refused() {
        let mut message = msg::AuthenticatedMail::default();
        message.verdict.authenticated = true;
        let error = authenticated_from_ros(&message).unwrap_err().to_string();
        assert!(error.starts_with("field 'verdict.authenticated' = true"), "{error}");
    }
}
