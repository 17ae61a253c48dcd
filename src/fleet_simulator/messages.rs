// SPDX-License-Identifier: Apache-2.0
//! Converts a sample to the messages that a real vehicle's sensors publish.
//!
//! Frames and units follow REP-103 and REP-105. The receiver's noise is not simulated.

use ros::{
    builtin_interfaces::msg::Time,
    nav_msgs::msg::Odometry,
    sensor_msgs::msg::{BatteryState, NavSatFix},
};

use super::Sample;

/// Horizontal standard deviation that the simulated receiver reports [m]; its positions have no noise.
const POSITION_STD_M: f64 = 0.5;

/// Position in WGS 84, in the frame of the vehicle's antenna.
pub(super) fn fix(sample: &Sample, stamp: &Time) -> NavSatFix {
    let mut fix = NavSatFix::default();
    fix.header.stamp = stamp.clone();
    fix.header.frame_id = format!("{}/gps", sample.vehicle);
    fix.status.status = 0; // STATUS_FIX
    fix.status.service = 1; // SERVICE_GPS
    fix.latitude = sample.latitude_deg;
    fix.longitude = sample.longitude_deg;
    fix.altitude = sample.altitude_m;
    let variance = POSITION_STD_M * POSITION_STD_M;
    fix.position_covariance = vec![variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, variance];
    fix.position_covariance_type = 2; // COVARIANCE_TYPE_DIAGONAL_KNOWN
    fix
}

/// Battery state. Values that are not simulated are NaN, as the message requires.
pub(super) fn battery_state(sample: &Sample, stamp: &Time) -> BatteryState {
    let mut state = BatteryState::default();
    state.header.stamp = stamp.clone();
    state.header.frame_id = format!("{}/base_link", sample.vehicle);
    state.voltage = single(sample.voltage_v);
    state.current = single(sample.current_a);
    state.percentage = single(sample.charge);
    state.temperature = f32::NAN;
    state.charge = f32::NAN;
    state.capacity = f32::NAN;
    state.design_capacity = f32::NAN;
    state.power_supply_status = if sample.charging { 1 } else { 2 }; // CHARGING, DISCHARGING
    state.power_supply_health = 1; // GOOD
    state.power_supply_technology = 3; // LIPO
    state.present = true;
    state
}

/// Pose in the fleet's ENU frame `map`, and velocity in the vehicle's own frame (REP-105).
pub(super) fn odometry(sample: &Sample, stamp: &Time) -> Odometry {
    let mut odometry = Odometry::default();
    odometry.header.stamp = stamp.clone();
    odometry.header.frame_id = "map".to_owned();
    odometry.child_frame_id = format!("{}/base_link", sample.vehicle);
    let pose = &mut odometry.pose.pose;
    pose.position.x = sample.east_m;
    pose.position.y = sample.north_m;
    let (sin, cos) = (sample.yaw_rad / 2.0).sin_cos();
    pose.orientation.z = sin;
    pose.orientation.w = cos;
    odometry.twist.twist.linear.x = sample.speed_mps;
    odometry.twist.twist.angular.z = sample.yaw_rate_radps;
    odometry
}

#[expect(clippy::cast_possible_truncation, reason = "the message has single precision")]
fn single(value: f64) -> f32 {
    value as f32
}
