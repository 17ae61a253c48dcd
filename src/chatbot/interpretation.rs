// SPDX-License-Identifier: Apache-2.0
//! What a mail says, as far as anything is decided by it. Pure.
//!
//! Nothing else in this crate makes sense of what strangers wrote, so it is a [`Job`](super::effect::Job) that may
//! fail.

use mail::{Mail, Verdict, is_automatic};

use super::{
    compose::ReceivedMail,
    intent::{self, NotTaken, Request, Unclear},
    order::Identity,
};

/// What was found in a mail.
#[derive(Clone, Debug)]
pub struct Interpretation {
    /// `None` if From is not exactly one address that can be answered.
    pub(super) received: Option<ReceivedMail>,
    /// Why it counts as automatic mail, if it does (RFC 3834).
    pub(super) automatic: Option<&'static str>,
    /// What it asks for.
    pub(super) request: Result<Request, NotTaken>,
    /// Identity of the order if it gives one, or why its order may not be carried out.
    pub(super) order: Result<Identity, Unclear>,
}

impl Interpretation {
    /// Interprets a mail. The verdict says only whether an order in it is covered by a signature.
    pub fn of(mail: &Mail, verdict: &Verdict) -> Self {
        let content = &mail.content;
        let received = ReceivedMail::of(mail.id, content, verdict);
        let identity = received.as_ref().and_then(|received| Identity::of(&received.from, content));
        let unidentified = || Unclear::NotCovered("it has no Message-ID or no Date".to_owned());
        Self {
            automatic: is_automatic(content, &mail.origin),
            request: intent::read(content),
            order: intent::may_order(content, verdict).and_then(|()| identity.ok_or_else(unidentified)),
            received,
        }
    }
}
