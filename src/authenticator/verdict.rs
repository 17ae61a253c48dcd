// SPDX-License-Identifier: Apache-2.0
//! Turns check results and the registry's answer into a verdict. Pure: no IO, no clock.
//!
//! `authenticated` MUST hold only if DMARC, or an ARC chain of trusted sealers, passed for exactly one From mailbox and the
//! registry lists that mailbox as active. Anything unknown counts against the sender.
//!
//! `verify` runs the checks; [`super::core`] decides when the registry is asked and the verdict acted on.

use mail::{AuthResult, EmailAddress, Registration, Role, Verdict};

/// Results of verifying one mail, before the registry is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// SPF of the envelope sender. `Unknown` if it was not evaluated: one of our own hosts passed the mail on, or the
    /// envelope domain cannot align with the author's.
    pub spf: AuthResult,
    /// Best result among all DKIM signatures.
    pub dkim: AuthResult,
    /// DMARC result for the From domain.
    pub dmarc: AuthResult,
    /// Whether trusted sealers vouch for the From domain by ARC. `Unknown` if there was no need, or nobody is trusted.
    pub arc: AuthResult,
    /// Domain of the newest sealer; empty unless they do.
    pub arc_domain: String,
    /// Domain of the DKIM signature that passed; empty if none did.
    pub dkim_domain: String,
    /// Selector of the DKIM signature that passed; empty if none did.
    pub dkim_selector: String,
    /// Whether an aligned DKIM signature covers everything an order depends on.
    pub order_covered: bool,
    /// Why an order is not covered, naming the field; empty if it is covered.
    pub order_gap: String,
    /// SHA-256 of the DKIM keys (the bytes of `p=`) whose signatures passed.
    pub dkim_keys: Vec<[u8; 32]>,
    /// Those whose signatures cover everything an order depends on.
    pub order_keys: Vec<[u8; 32]>,
    /// The one mailbox of the one From field: local part as written, domain in lower case. `None` if there is not
    /// exactly one.
    pub from: Option<EmailAddress>,
    /// One sentence that sums up these results; contains no address.
    pub reason: String,
}

impl Checked {
    /// Whether the From domain is proven to have sent the mail.
    pub fn is_proven(&self) -> bool {
        self.dmarc == AuthResult::Pass || self.arc == AuthResult::Pass
    }

    /// Whether DNS did not answer, and an answer could prove it.
    pub fn is_open(&self) -> bool {
        self.dmarc == AuthResult::TempError || self.arc == AuthResult::TempError
    }
}

/// Whether to ask the registry about `checked.from`: yes if the sender is proven, or if a temporary error leaves that
/// open. In the second case the answer only affects what people are told, never `authenticated`.
pub fn needs_registry(checked: &Checked) -> bool {
    (checked.is_proven() || checked.is_open()) && checked.from.is_some()
}

/// What the registry says of a From mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryAnswer {
    /// What the sender counts as now.
    pub registration: Registration,
    /// Its role; `None` unless it is active.
    pub role: Role,
    /// SHA-256 of the DKIM key that must sign its mails; `None`: any.
    pub dkim_key: Option<[u8; 32]>,
    /// Whether the chain proved it as far as it must (parameter `registry_proof`). An order needs that.
    pub is_proven: bool,
}

impl RegistryAnswer {
    /// An active sender with this role and any key.
    pub const fn active(role: Role) -> Self {
        Self { registration: Registration::Active, role, dkim_key: None, is_proven: true }
    }

    /// A sender that is not active.
    pub const fn inactive(registration: Registration) -> Self {
        Self { registration, role: Role::None, dkim_key: None, is_proven: true }
    }
}

/// Computes the verdict. `answer` is the registry's for `checked.from`. `None` means that it was not asked;
/// if [`needs_registry`] says it should have been, the registry counts as unavailable.
pub fn decide(mut checked: Checked, answer: Option<RegistryAnswer>) -> Verdict {
    let is_proven = checked.is_proven();
    let pinned = answer.and_then(|answer| answer.dkim_key);
    let is_signed = pinned.is_none_or(|key| checked.dkim_keys.contains(&key));
    let (registry, role) = match answer.map(|answer| (answer.registration, answer.role)) {
        _ if !needs_registry(&checked) => (Registration::Unknown, Role::None),
        Some((Registration::Active, _)) if is_proven && !is_signed => (Registration::OtherKey, Role::None),
        Some((Registration::Active, role)) if is_proven => (Registration::Active, role),
        Some((Registration::Unknown, _)) | None => (Registration::Unavailable, Role::None),
        Some((other, _)) => (other, Role::None),
    };
    if checked.order_covered && pinned.is_some_and(|key| !checked.order_keys.contains(&key)) {
        checked.order_covered = false;
        checked.order_gap = "no signature by the DKIM key that is registered covers it".to_owned();
    }
    if checked.order_covered && role == Role::Operator && answer.is_some_and(|answer| !answer.is_proven) {
        checked.order_covered = false;
        checked.order_gap =
            "the chain could not prove that the sender is an operator, see the authenticator's log"
                .to_owned();
    }
    let proven = checked.reason.trim_end_matches('.');
    let reason = match (registry, role) {
        (Registration::Unknown, _) => checked.reason,
        (Registration::Unregistered, _) => format!("{proven}, but the sender is not registered."),
        (Registration::Revoked, _) => format!("{proven}, but the sender's registration is revoked."),
        (Registration::Unavailable, _) => format!("{proven}, but the registry could not be asked."),
        (Registration::NotValidNow, _) => {
            format!("{proven}, but the sender's registration is for another time.")
        }
        (Registration::OtherKey, _) => {
            format!("{proven}, but no signature is by the DKIM key that is registered for the sender.")
        }
        (Registration::Active, _) if !is_proven => {
            format!("{proven}, and the sender that it claims is registered.")
        }
        (Registration::Active, Role::None) => {
            format!("{proven}, and the sender is registered, without a role.")
        }
        (Registration::Active, Role::Observer) => {
            format!("{proven}, and the sender is registered as observer.")
        }
        (Registration::Active, Role::Operator) => {
            format!("{proven}, and the sender is registered as operator.")
        }
    };
    Verdict {
        spf: checked.spf,
        dkim: checked.dkim,
        dmarc: checked.dmarc,
        arc: checked.arc,
        arc_domain: checked.arc_domain,
        dkim_domain: checked.dkim_domain,
        dkim_selector: checked.dkim_selector,
        order_covered: checked.order_covered && checked.dmarc == AuthResult::Pass,
        order_gap: checked.order_gap,
        registry,
        role,
        authenticated: is_proven && registry == Registration::Active,
        reason,
    }
}

/// Returns the verdict to act on, given the codes `evidenced` on the ledger when the mail was first judged. Anything
/// acted on MUST be provable, so the verdict with less authority wins. If that is the ledger's, its codes replace
/// ours, so that a consumer that receives the mail again sees the same results as the first time. The new verdict may
/// also be the weaker one, for example after a revocation. Whichever wins, an order needs a DKIM signature that passed
/// both times.
pub fn as_evidenced(mut verdict: Verdict, evidenced: &[u8; 7]) -> Verdict {
    let [authenticated, spf, dkim, dmarc, registry, role, arc] = *evidenced;
    if verdict.order_covered && [dkim, dmarc] != [AuthResult::Pass as u8; 2] {
        verdict.order_covered = false;
        verdict.order_gap =
            "on the ledger, from when it was first judged, no DKIM signature proves its sender".to_owned();
    }
    if !verdict.authenticated || authenticated == 1 && verdict.role as u8 <= role {
        return verdict;
    }
    let result = |code: u8| RESULTS.into_iter().find(|result| *result as u8 == code).unwrap_or_default();
    if result(dkim) != AuthResult::Pass {
        // These name the signature that passed.
        (verdict.dkim_domain, verdict.dkim_selector) = Default::default();
    }
    Verdict {
        authenticated: authenticated == 1,
        spf: result(spf),
        dkim: result(dkim),
        dmarc: result(dmarc),
        arc: result(arc),
        registry: Registration::ALL.into_iter().find(|one| *one as u8 == registry).unwrap_or_default(),
        role: Role::ALL.into_iter().find(|one| *one as u8 == role).unwrap_or_default(),
        reason: "The ledger has this mail with less authority, from when it was first judged; send it again."
            .to_owned(),
        ..verdict
    }
}

/// The verdict on a mail whose sender was revoked after the registry had been asked.
pub fn revoked(verdict: Verdict) -> Verdict {
    Verdict {
        registry: Registration::Revoked,
        role: Role::None,
        authenticated: false,
        reason: "The sender was revoked while the mail was being judged.".to_owned(),
        ..verdict
    }
}

/// All values of each enum, used to decode evidence codes.
const RESULTS: [AuthResult; 8] = [
    AuthResult::Unknown,
    AuthResult::None,
    AuthResult::Pass,
    AuthResult::Fail,
    AuthResult::SoftFail,
    AuthResult::Neutral,
    AuthResult::TempError,
    AuthResult::PermError,
];

/// Encodes the verdict as it stands at the end of `LedgerReceipt.facts`.
pub fn evidence_code(verdict: &Verdict) -> [u8; 7] {
    [
        u8::from(verdict.authenticated),
        verdict.spf as u8,
        verdict.dkim as u8,
        verdict.dmarc as u8,
        verdict.registry as u8,
        verdict.role as u8,
        verdict.arc as u8,
    ]
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    use AuthResult::*;

    #[test]
    fn a_mail_that_was_evidenced_with_less_authority_is_not_acted_on_with_more() {
        let now = Verdict {
            dkim: Pass,
            dmarc: Pass,
            registry: Registration::Active,
            role: Role::Operator,
            authenticated: true,
            ..Verdict::default()
        };
        assert_eq!(as_evidenced(now.clone(), &evidence_code(&now)), now);
        // The mail was given up while DNS did not answer; a redelivery must report the same result.
        let then = Verdict {
            dkim: TempError,
            dmarc: TempError,
            role: Role::None,
            authenticated: false,
            ..now.clone()
        };
        let acted_on = as_evidenced(now.clone(), &evidence_code(&then));
        assert_eq!(evidence_code(&acted_on), evidence_code(&then));
        assert!(acted_on.reason.contains("send it again"), "{}", acted_on.reason);
        assert_eq!(as_evidenced(then.clone(), &evidence_code(&now)), then);
        let observer = Verdict { role: Role::Observer, ..now.clone() };
        let acted_on = as_evidenced(now.clone(), &evidence_code(&observer));
        assert!(acted_on.authenticated && acted_on.role == Role::Observer, "{acted_on:?}");
        assert_eq!(as_evidenced(observer.clone(), &evidence_code(&now)), observer);
    }

    proptest! {
        /// Whatever the two verdicts say, and whichever of them wins.
        #[test]
        fn an_order_rests_on_nothing_that_the_evidence_does_not_carry(now in verdict(), then in verdict()) {
            let acted_on = as_evidenced(now.clone(), &evidence_code(&then));
            if acted_on.order_covered {
                prop_assert!(now.order_covered);
                prop_assert_eq!((then.dkim, then.dmarc), (Pass, Pass));
                prop_assert_eq!((acted_on.dkim, acted_on.dmarc), (Pass, Pass));
            }
            prop_assert_eq!(acted_on.order_covered, acted_on.order_gap.is_empty());
            // `Verdict.msg`: empty if none passed.
            prop_assert!(acted_on.dkim == Pass || acted_on.dkim_domain.is_empty() && acted_on.dkim_selector.is_empty());
            prop_assert!(!acted_on.authenticated || now.authenticated && then.authenticated);
        }
    }

    /// Any verdict that [`decide`] can reach.
    fn verdict() -> impl Strategy<Value = Verdict> {
        let result = || select(&RESULTS);
        let results = (result(), result(), result(), result(), any::<[bool; 2]>());
        let key = prop::option::of(select(&[[1; 32], [2; 32]]));
        let answer = prop::option::of((select(&Registration::ALL), select(&Role::ALL), key).prop_map(
            |(registration, role, dkim_key)| RegistryAnswer {
                dkim_key,
                ..RegistryAnswer { registration, ..RegistryAnswer::active(role) }
            },
        ));
        (results, answer).prop_map(|((spf, dkim, dmarc, arc, [from, suits]), answer)| {
            let mut checked = checked(spf, dkim, dmarc, from.then_some("alice@example.org"));
            checked.arc = arc;
            checked.order_covered = suits && dkim == Pass && dmarc == Pass;
            checked.order_gap =
                if checked.order_covered { "" } else { "its DKIM signature does not fit" }.to_owned();
            if dkim == Pass {
                checked.dkim_keys = vec![[1; 32]];
                checked.order_keys = if suits { vec![[1; 32]] } else { Vec::new() };
                (checked.dkim_domain, checked.dkim_selector) = ("example.org".to_owned(), "s1".to_owned());
            }
            decide(checked, answer)
        })
    }

    fn checked(spf: AuthResult, dkim: AuthResult, dmarc: AuthResult, from: Option<&str>) -> Checked {
        let reason = "example.org sent it.".to_owned();
        Checked {
            spf,
            dkim,
            dmarc,
            from: from.map(|from| EmailAddress::parse(from).unwrap()),
            reason,
            ..Checked::default()
        }
    }

    /// Calls `check` with every combination of results and registry answers.
    fn each(mut check: impl FnMut(&Checked, Option<RegistryAnswer>, &Verdict)) {
        let mut answers = vec![Option::None];
        for registration in Registration::ALL {
            answers.extend(
                Role::ALL.map(|role| Some(RegistryAnswer { role, ..RegistryAnswer::inactive(registration) })),
            );
        }
        for spf in RESULTS {
            for dkim in RESULTS {
                for dmarc in RESULTS {
                    for from in [Option::None, Some("alice@example.org")] {
                        for &answer in &answers {
                            let checked = checked(spf, dkim, dmarc, from);
                            check(&checked, answer, &decide(checked.clone(), answer));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn authenticated_means_dmarc_or_arc_passed_for_one_mailbox_that_is_active_in_the_registry() {
        each(|checked, answer, verdict| {
            let active = answer.is_some_and(|answer| answer.registration == Registration::Active);
            assert_eq!(verdict.authenticated, checked.dmarc == Pass && checked.from.is_some() && active);
            let vouched_for = Checked { arc: Pass, order_covered: true, ..checked.clone() };
            let verdict = decide(vouched_for, answer);
            assert_eq!(verdict.authenticated, checked.from.is_some() && active);
            assert_eq!(verdict.order_covered, checked.dmarc == Pass, "never enough for an order");
        });
    }

    #[test]
    fn a_registered_key_must_have_signed_and_for_an_order_its_signature_must_cover_all() {
        let pinned = RegistryAnswer { dkim_key: Some([7; 32]), ..RegistryAnswer::active(Role::Operator) };
        let signed = |dkim_keys: Vec<[u8; 32]>, order_keys: Vec<[u8; 32]>| {
            let checked = checked(Pass, Pass, Pass, Some("alice@example.org"));
            decide(Checked { order_covered: true, dkim_keys, order_keys, ..checked }, Some(pinned))
        };
        let other = signed(vec![[8; 32]], vec![[8; 32]]);
        assert_eq!((other.registry, other.role), (Registration::OtherKey, Role::None));
        assert!(!other.authenticated && !other.order_covered);
        assert_eq!(signed(vec![], vec![]).registry, Registration::OtherKey, "SPF alone");
        let by_it = signed(vec![[8; 32], [7; 32]], vec![[8; 32]]);
        assert!(by_it.authenticated && !by_it.order_covered, "{by_it:?}");
        assert!(by_it.order_gap.contains("the DKIM key that is registered"), "{}", by_it.order_gap);
        let unproven = RegistryAnswer { is_proven: false, ..RegistryAnswer::active(Role::Operator) };
        let covered = Checked { order_covered: true, ..checked(Pass, Pass, Pass, Some("alice@example.org")) };
        let doubtful = decide(covered, Some(unproven));
        assert!(doubtful.authenticated && doubtful.role == Role::Operator && !doubtful.order_covered);
        assert!(doubtful.order_gap.contains("the chain could not prove"), "{}", doubtful.order_gap);
        let whole = signed(vec![[7; 32]], vec![[7; 32]]);
        assert!(whole.authenticated && whole.order_covered && whole.order_gap.is_empty());
    }

    #[test]
    fn a_role_means_authenticated() {
        each(|_, _, verdict| assert!(verdict.role == Role::None || verdict.authenticated));
    }

    #[test]
    fn the_registry_is_unknown_exactly_if_it_is_not_needed() {
        each(|checked, _, verdict| {
            assert_eq!(verdict.registry == Registration::Unknown, !needs_registry(checked))
        });
    }

    #[test]
    fn the_reason_is_one_sentence_without_an_address() {
        each(|_, _, verdict| {
            assert!(!verdict.reason.contains('@'));
            assert_eq!(verdict.reason.matches(". ").count(), 0, "{}", verdict.reason);
            assert!(verdict.reason.ends_with('.') && !verdict.reason.ends_with(".."));
        });
    }

    #[test]
    fn the_evidence_code_is_the_verdict_in_the_order_of_the_receipt() {
        let verdict =
            decide(checked(Fail, Pass, Pass, Some("a@b")), Some(RegistryAnswer::active(Role::Operator)));
        assert_eq!(evidence_code(&verdict), [1, 3, 2, 2, 2, 2, 0]);
        each(|_, _, verdict| assert_eq!(evidence_code(verdict)[0] == 1, verdict.authenticated));
    }
}
