// SPDX-License-Identifier: Apache-2.0
//! Decides who may ask and who may order.
//!
//! A contradictory verdict permits nothing. What a sender without permission is told is left to [`super::policy`].

use mail::{Registration, Role, Verdict};

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
    let (passed, open) = (verdict.is_proven(), verdict.is_open());
    match (verdict.registry, verdict.authenticated, verdict.role) {
        (Registration::Active, true, Role::Operator) if passed => Standing::Operator,
        (Registration::Active, true, Role::Observer) if passed => Standing::Observer,
        (Registration::Active, true, Role::None) if passed => Standing::Rejected("registered without a role"),
        (Registration::Unavailable, false, _) if passed && answers_without_registry => Standing::Unproven,
        (Registration::Unavailable, ..) if passed => Standing::Unchecked,
        (Registration::Active | Registration::Unavailable, false, _) if open => Standing::Unjudged,
        _ => Standing::Rejected("not authenticated"),
    }
}
