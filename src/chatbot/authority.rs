//! Who may ask and who may order.

use crate::mail::{AuthResult, Registration, Role, Verdict};

/// What a sender may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing; why.
    Rejected(&'static str),
    /// Nothing, and the mail may be from a registered sender: DMARC could not be evaluated, and the sender that it names
    /// is registered or the registry cannot be asked.
    Unjudged,
    /// Nothing: passed DMARC, and the registry cannot be asked.
    Unchecked,
    /// Ask: passed DMARC while the registry cannot be asked, and the policy is to answer.
    Unproven,
    /// Ask.
    Observer,
    /// Ask and order.
    Operator,
}

/// What the sender of a mail with this verdict may do. `answers_without_registry` is the policy for questions.
///
/// The fields are looked at one by one: a verdict comes over a topic, and a contradiction is no permission.
pub(super) fn standing(verdict: &Verdict, answers_without_registry: bool) -> Standing {
    match (verdict.dmarc, verdict.registry, verdict.authenticated, verdict.role) {
        (AuthResult::Pass, Registration::Active, true, Role::Operator) => Standing::Operator,
        (AuthResult::Pass, Registration::Active, true, Role::Observer) => Standing::Observer,
        (AuthResult::Pass, Registration::Active, true, Role::None) => {
            Standing::Rejected("registered without a role")
        }
        (AuthResult::Pass, Registration::Unavailable, false, _) if answers_without_registry => {
            Standing::Unproven
        }
        (AuthResult::Pass, Registration::Unavailable, ..) => Standing::Unchecked,
        (AuthResult::TempError, Registration::Active | Registration::Unavailable, false, _) => {
            Standing::Unjudged
        }
        _ => Standing::Rejected("not authenticated"),
    }
}
