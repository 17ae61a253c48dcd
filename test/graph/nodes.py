# SPDX-License-Identifier: Apache-2.0
"""Prints what each named node publishes, subscribes to, serves and asks, as one line of JSON, when all of them are known.

Arguments: full names of nodes, such as /fleet/chatbot.
"""

import json
import sys
import time

import rclpy

PATIENCE_S = 30.0
# Discovery tells of endpoints one after the other; they are complete when nothing was added for so long.
QUIET_S = 2.0


def seen_of(node, full_name: str) -> dict[str, list[str]]:
    namespace, _, name = full_name.rpartition("/")
    by_node = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
        "request": node.get_client_names_and_types_by_node,
    }
    return {how: sorted(topic for topic, _ in ask(name, namespace or "/")) for how, ask in by_node.items()}


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("nodes")
    wanted, last, since = set(sys.argv[1:]), {}, time.monotonic()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
        here = {f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()}
        now = {name: seen_of(node, name) for name in wanted} if wanted <= here else {}
        if now != last:
            last, since = now, time.monotonic()
        if last and time.monotonic() - since > QUIET_S:
            break
    else:
        sys.exit(f"not within {PATIENCE_S} s: the nodes {sorted(wanted)} and all that they have")
    print(json.dumps(last), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
