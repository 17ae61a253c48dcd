// SPDX-License-Identifier: Apache-2.0
//! Outbound mails that any node may publish, and the delivery status that it gets.

use ros::{msg, topics};
use serde_json::{Value, json};
use testbed::{domain::Domain, node::Node, observer::Observer, smtp::Sink};

use super::publisher::Publisher;

struct Bridge {
    publisher: Publisher,
    observer: Observer,
    _directory: tempfile::TempDir,
    _node: Node,
    _domain: Domain,
}

impl Bridge {
    fn start(sink: &Sink) -> Self {
        let (domain, directory) = (Domain::take(), tempfile::tempdir().unwrap());
        let parameters = [
            ("smtp_listen", "\"127.0.0.1:0\""),
            ("lmtp_listen", "\"\""),
            ("smarthost", &format!("\"{}\"", sink.address)),
            ("journal_directory", directory.path().to_str().unwrap()),
        ];
        let mut node = Node::start("mail_bridge", &domain, &parameters);
        node.wait_for_log("listening address=");
        let mut observer = Observer::start(&domain, &[topics::MAIL_DELIVERIES.facts]);
        observer.wait_until_matched();
        let publisher = Publisher::start(&domain, topics::MAIL_OUTBOUND.facts, 1);
        Self { publisher, observer, _directory: directory, _node: node, _domain: domain }
    }

    fn told(&mut self, state: i8, matches: impl Fn(&Value) -> bool) -> Value {
        let has_state = |status: &Value| status["status"] == state;
        self.observer.message(topics::MAIL_DELIVERIES.facts, |status| has_state(status) && matches(status))
    }
}

#[test]
fn notices_without_message_id_are_sent_and_what_is_malformed_is_refused_with_the_reason() {
    let sink = Sink::start();
    let mut bridge = Bridge::start(&sink);
    // This once failed: the second notice got the identity of the first and vanished silently.
    for subject in ["battery low", "truck_2 is silent"] {
        bridge.publisher.publish(&json!({
            "kind": msg::OutboundMail::KIND_NOTICE as u8, "to": ["ops@fleet.example"], "subject": subject, "text": subject,
            "reply_to": ["dana@dispatch.example"], "urgent": true,
        }));
        let mail = sink.next();
        assert_eq!(mail.header("Subject"), Some(subject));
        assert_eq!(mail.header("Reply-To"), Some("<dana@dispatch.example>"));
        assert_eq!((mail.header("Importance"), mail.header("X-Priority")), (Some("high"), Some("1")));
        let id = mail.header("Message-ID").unwrap().trim_matches(['<', '>']).to_owned();
        bridge.told(msg::DeliveryStatus::DELIVERED as i8, |status| status["message_id"] == id.as_str());
    }
    // Once, these were only a line in the log.
    for (fields, reason) in [
        (json!({"to": ["a@b.example"], "message_id": "no-kind"}), "field 'kind' = 0: must be one of KIND_*"),
        (json!({"kind": 3, "message_id": "nobody"}), "field 'to' = []: must be at least one recipient"),
        (
            json!({"kind": 3, "to": ["a b@c"], "message_id": "bad-address"}),
            "to is not an address like name@host",
        ),
        (
            json!({"kind": 2, "to": ["a@b.example"], "message_id": "of-nothing"}),
            "a forward must name the mail",
        ),
    ] {
        bridge.publisher.publish(&fields);
        let status = bridge
            .told(msg::DeliveryStatus::REFUSED as i8, |status| status["message_id"] == fields["message_id"]);
        let reply = status["reply"].as_str().unwrap();
        assert!(reply.starts_with("malformed: ") && reply.contains(reason), "{reply}");
        assert_eq!(status["attempts"], 0);
    }
}
