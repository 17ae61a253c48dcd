// SPDX-License-Identifier: Apache-2.0
//! Decides who may ask and who may order.
//!
//! A contradictory verdict permits nothing. What a sender without permission is told is left to [`super::policy`].

use mail::{AuthResult, Registration, Role, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// May do nothing, for this reason.
    Rejected(&'static str),
    /// May do nothing, but could be a registered sender: DMARC could not be evaluated, and the sender that the mail
    /// names is registered, or the registry cannot be asked.
    Unjudged,
    /// May do nothing for now: passed DMARC, but the registry cannot be asked.
    Unchecked,
    /// May ask: passed DMARC; the registry cannot be asked, and the policy is to answer all the same.
    Unproven,
    /// May ask.
    Observer,
    /// May ask and order.
    Operator,
}

/// Decides what the sender of a mail with this verdict may do. `answers_without_registry` is the policy for questions.
///
/// Checks every field, because verdicts arrive on a topic and a contradiction must not permit anything.
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
