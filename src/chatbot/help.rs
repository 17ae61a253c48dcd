// SPDX-License-Identifier: Apache-2.0
//! Answers `help` with the requests that posthorn understands.

use super::intent::Request;

pub(super) fn parse(words: &[&str]) -> Option<Request> {
    (words == ["help"]).then_some(Request::Help)
}

/// Lists the orders only for senders who may give them.
pub(super) fn answer(may_order: bool) -> String {
    let questions = "\
You can ask, in the subject or on a line of its own:

  status            how all vehicles are
  status VEHICLE    how one vehicle is
  where is VEHICLE  its position
  battery VEHICLE   its battery
  help              this text
";
    let orders = "
You can order, as the only line of the mail:

  stop VEHICLE      come to a halt and stay
  resume VEHICLE    drive on
";
    let rest = "\nA mail that reads otherwise goes to a person.\n";
    [questions, if may_order { orders } else { "" }, rest].concat()
}
