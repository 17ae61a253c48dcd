# SPDX-License-Identifier: Apache-2.0
"""A fleet of many vehicles, and any ROS 2 user's Python node that looks at it with rclpy's default QoS.

Arguments: the number of vehicles, v0 and so on. Each publishes a fix until its state was seen, on its own topic and in
the overview; then one line of JSON says how many were seen on each.
"""

import json
import sys
import time

import rclpy
from posthorn.msg import VehicleState, VehicleStates
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import NavSatFix, NavSatStatus

PATIENCE_S = 60.0
ROUND_S = 1.0


def main() -> None:
    count = int(sys.argv[1])
    names = [f"v{number}" for number in range(count)]
    rclpy.init()
    node = rclpy.create_node("many")
    own, overview = set(), set()

    def latitude(name: str) -> float:
        return int(name[1:]) / 100.0

    def is_told(state: VehicleState) -> bool:
        return state.position_stamp.sec != 0 and state.latitude == latitude(state.vehicle)

    def on_overview(message: VehicleStates) -> None:
        overview.clear()
        overview.update(state.vehicle for state in message.states if is_told(state))

    # Depth 10 and nothing else: reliable and volatile, as `ros2 topic echo` and most code have it.
    for name in names:
        node.create_subscription(
            VehicleState, f"vehicles/{name}/state", lambda state: is_told(state) and own.add(state.vehicle), 10
        )
    node.create_subscription(VehicleStates, "vehicles/states", on_overview, 10)
    fixes = {name: node.create_publisher(NavSatFix, f"{name}/fix", qos_profile_sensor_data) for name in names}
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    print(json.dumps({"ready": True}), flush=True)

    began = time.monotonic()
    published = 0.0
    while time.monotonic() - began < PATIENCE_S and not len(own) == len(overview) == count:
        if time.monotonic() - published > ROUND_S:
            published = time.monotonic()
            for name, fix in fixes.items():
                if name not in own or name not in overview:
                    status = NavSatStatus(status=NavSatStatus.STATUS_FIX)
                    fix.publish(NavSatFix(status=status, latitude=latitude(name)))
        executor.spin_once(timeout_sec=0.05)
    print(json.dumps({"own": len(own), "overview": len(overview), "s": time.monotonic() - began}), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
