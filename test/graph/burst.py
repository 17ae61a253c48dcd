# SPDX-License-Identifier: Apache-2.0
"""Publishes as many messages as its argument says on `burst` as fast as it can, once somebody has subscribed.

Prints a line when all of them are published; it ends at the end of input, because until then a subscriber may ask for
some of them again.
"""

import sys
import time

import rclpy
from rclpy.qos import QoSProfile
from std_msgs.msg import String

PATIENCE_S = 30.0


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("burst")
    publisher = node.create_publisher(String, "burst", QoSProfile(depth=1000))
    deadline = time.monotonic() + PATIENCE_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            sys.exit("nobody subscribed")
        time.sleep(0.01)
    for number in range(int(sys.argv[1])):
        publisher.publish(String(data=str(number)))
    print("published", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
