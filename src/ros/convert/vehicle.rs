//! `VehicleState`, `VehicleAlert` and `VehicleCommand`.

use std::time::SystemTime;

use r2r::builtin_interfaces::msg::Time;

use super::{ConvertError, bytes_from_ros, error, id_from_ros, time_from_ros, time_to_ros};
use crate::{
    ros::msg,
    vehicle::{Alert, Battery, Command, Motion, Position, VehicleCommand, VehicleState},
};

/// A vehicle's state for the graph; what was never received is NaN with a zero stamp.
pub fn state_to_ros(state: &VehicleState) -> msg::VehicleState {
    let VehicleState { vehicle, stamp, position, battery, motion } = state;
    let number = f64::NAN;
    msg::VehicleState {
        stamp: time_to_ros(*stamp),
        vehicle: vehicle.clone(),
        position_stamp: position.map_or_else(Time::default, |position| time_to_ros(position.at)),
        latitude: position.map_or(number, |position| position.latitude_deg),
        longitude: position.map_or(number, |position| position.longitude_deg),
        altitude: position.map_or(number, |position| position.altitude_m),
        battery_stamp: battery.map_or_else(Time::default, |battery| time_to_ros(battery.at)),
        battery_charge: battery.map_or(number, |battery| battery.charge),
        battery_voltage: battery.map_or(number, |battery| battery.voltage_v),
        odometry_stamp: motion.map_or_else(Time::default, |motion| time_to_ros(motion.at)),
        speed: motion.map_or(number, |motion| motion.speed_mps),
    }
}

/// A vehicle's state from the graph.
pub fn state_from_ros(state: &msg::VehicleState) -> VehicleState {
    let received = |stamp: &Time| Some(time_from_ros(stamp)).filter(|at| *at != SystemTime::UNIX_EPOCH);
    VehicleState {
        vehicle: state.vehicle.clone(),
        stamp: time_from_ros(&state.stamp),
        position: received(&state.position_stamp).map(|at| Position {
            latitude_deg: state.latitude,
            longitude_deg: state.longitude,
            altitude_m: state.altitude,
            at,
        }),
        battery: received(&state.battery_stamp).map(|at| Battery {
            charge: state.battery_charge,
            voltage_v: state.battery_voltage,
            at,
        }),
        motion: received(&state.odometry_stamp).map(|at| Motion { speed_mps: state.speed, at }),
    }
}

/// An alert for the graph.
pub fn alert_to_ros(alert: &Alert) -> msg::VehicleAlert {
    msg::VehicleAlert {
        stamp: time_to_ros(alert.at),
        vehicle: alert.vehicle.clone(),
        condition: alert.condition as u8,
        raised: alert.raised,
        text: alert.text.clone(),
    }
}

/// An order for the graph.
pub fn command_to_ros(command: &VehicleCommand, now: SystemTime) -> msg::VehicleCommand {
    msg::VehicleCommand {
        stamp: time_to_ros(now),
        command_id: command.command_id.to_vec(),
        mail_id: command.mail_id.as_bytes().to_vec(),
        vehicle: command.vehicle.clone(),
        command: command.command as u8,
        ordered_by: command.ordered_by.clone(),
    }
}

/// An order from the graph.
///
/// # Errors
/// Naming the field that breaks `VehicleCommand.msg`.
pub fn command_from_ros(message: &msg::VehicleCommand) -> Result<VehicleCommand, ConvertError> {
    Ok(VehicleCommand {
        command_id: bytes_from_ros("command_id", &message.command_id)?,
        mail_id: id_from_ros("mail_id", &message.mail_id)?,
        vehicle: message.vehicle.clone(),
        command: [Command::Stop, Command::Resume]
            .into_iter()
            .find(|command| *command as u8 == message.command)
            .ok_or_else(|| error("command", message.command, "STOP or RESUME"))?,
        ordered_by: message.ordered_by.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_state_survives_the_graph_also_where_nothing_was_received() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut state = VehicleState::unheard("truck_1");
        assert_eq!(state_from_ros(&state_to_ros(&state)), state);
        state.stamp = at;
        state.battery = Some(Battery { charge: 0.5, voltage_v: 48.0, at });
        assert_eq!(state_from_ros(&state_to_ros(&state)), state);
        assert!(state_to_ros(&state).latitude.is_nan());
    }
}
