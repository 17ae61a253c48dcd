# SPDX-License-Identifier: Apache-2.0
"""Looks at the graph as any ROS 2 user's Python node would: which topics, of which type and QoS; and reads one Mail.

Prints one line of JSON when it has seen every topic named on the command line and a mail on mail/inbound.
"""

import json
import sys
import time

import rclpy
from posthorn.msg import Origin, Mail

PATIENCE_S = 30.0


def named_publishers(node, topic):
    """Publishers of a topic, once discovery knows the names of their nodes, which come after the endpoints."""
    publishers = node.get_publishers_info_by_topic(topic)
    return [] if any("UNKNOWN" in publisher.node_name for publisher in publishers) else publishers


def main() -> None:
    wanted = {"/" + name for name in sys.argv[1:]}
    rclpy.init()
    node = rclpy.create_node("look")
    mails = []
    node.create_subscription(Mail, "mail/inbound", mails.append, 10)
    print(json.dumps({"ready": True}), flush=True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
        published = {topic for topic in wanted if named_publishers(node, topic)}
        if published == wanted and mails:
            break
    else:
        sys.exit(f"not within {PATIENCE_S} s: a mail ({len(mails)} came) and the topics {sorted(wanted - published)}")
    topics = {}
    for topic in sorted(wanted):
        for endpoint in named_publishers(node, topic):
            qos = endpoint.qos_profile
            topics.setdefault(topic[1:], []).append(
                {
                    "type": endpoint.topic_type,
                    "node": endpoint.node_name,
                    "reliability": qos.reliability.name,
                    "durability": qos.durability.name,
                }
            )
    mail = mails[0]
    seen = {
        "id": mail.id,
        "from": [address.address for address in mail.from_addresses],
        "subject": mail.subject,
        "text": mail.text,
        "rcpt_to": [list(envelope.rcpt_to) for envelope in mail.origin.envelope],
        "is_smtp": mail.origin.protocol == Origin.SMTP,
        "imap": len(mail.origin.imap),
        "consumers": list(mail.consumers),
    }
    print(json.dumps({"topics": topics, "mail": seen}), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
