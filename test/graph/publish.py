# SPDX-License-Identifier: Apache-2.0
"""Publishes one message as any ROS 2 user's Python node could: TOPIC, TYPE (of posthorn.msg), its fields as JSON,
and how many SUBSCRIBERS there are.

Waits for them, and ends when they have acknowledged the message.
"""

import json
import sys
import time

import posthorn.msg
import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration

PATIENCE_S = 30.0


def main() -> None:
    topic, type_name, fields, subscribers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
    message = getattr(posthorn.msg, type_name)()
    for name, value in fields.items():
        is_time = isinstance(value, dict)
        setattr(message, name, Time(sec=value["sec"], nanosec=value["nanosec"]) if is_time else value)
    rclpy.init()
    node = rclpy.create_node("publish")
    publisher = node.create_publisher(type(message), topic, 10)
    deadline = time.monotonic() + PATIENCE_S
    while publisher.get_subscription_count() < subscribers:
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE_S} s: {subscribers} subscribers of {topic}")
        time.sleep(0.01)
    publisher.publish(message)
    if not publisher.wait_for_all_acked(Duration(seconds=PATIENCE_S)):
        sys.exit(f"not within {PATIENCE_S} s: the subscribers of {topic} have the message")
    rclpy.shutdown()


if __name__ == "__main__":
    main()
