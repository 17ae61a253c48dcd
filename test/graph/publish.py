# SPDX-License-Identifier: Apache-2.0
"""Publishes one message as any ROS 2 user's Python node could: TOPIC, TYPE (of posthorn.msg), its fields as JSON,
and how many SUBSCRIBERS there are.

Waits for them, and ends when they have acknowledged the message.
"""

import importlib
import json
import sys
import time

import rclpy
from rclpy.duration import Duration

PATIENCE_S = 30.0


def value_of(type_name: str, value: object) -> object:
    """The value of a field of this type, such as `posthorn/Mail` or `sequence<posthorn/Address, 64>`, from its JSON."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        element = type_name.removeprefix("sequence<").split(",")[0].rstrip(">")
        return [value_of(element, item) for item in value]
    if not isinstance(value, dict):
        return value
    package, name = type_name.split("/")
    message = getattr(importlib.import_module(f"{package}.msg"), name)()
    types = message.get_fields_and_field_types()
    for field, inner in value.items():
        setattr(message, field, value_of(types[field], inner))
    return message


def main() -> None:
    topic, type_name, fields, subscribers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
    message = value_of(f"posthorn/{type_name}", fields)
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
