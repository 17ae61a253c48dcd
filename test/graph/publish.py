# SPDX-License-Identifier: Apache-2.0
"""Publishes messages as any ROS 2 user's Python node could.

Arguments: TOPIC, TYPE (of posthorn.msg), and how many SUBSCRIBERS to wait for. Each line of standard input is the
fields of one message as JSON. It ends at the end of input.
"""

import importlib
import json
import sys
import time

import rclpy

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
    topic, type_name, subscribers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rclpy.init()
    node = rclpy.create_node("publish")
    publisher = node.create_publisher(getattr(importlib.import_module("posthorn.msg"), type_name), topic, 10)
    deadline = time.monotonic() + PATIENCE_S
    while publisher.get_subscription_count() < subscribers:
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE_S} s: {subscribers} subscribers of {topic}")
        time.sleep(0.01)
    for line in sys.stdin:
        publisher.publish(value_of(f"posthorn/{type_name}", json.loads(line)))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
