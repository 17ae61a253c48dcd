//! Converts `VehicleState`, `VehicleStates`, `VehicleAlert`, `VehicleCommand` and `VehicleAcknowledgement`.

use std::time::SystemTime;

use r2r::builtin_interfaces::msg::Time;
use vehicle::{
    Acknowledgement, AcknowledgementStatus, Alert, Battery, Command, Motion, Position, VehicleCommand,
    VehicleState,
};

use super::{ConvertError, bytes_from_ros, error, hex_from_ros, id_from_ros, time_from_ros, time_to_ros};
use crate::msg;

/// Converts a vehicle's state to its message; values never received become NaN with a zero stamp.
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

/// Converts the states of all vehicles to one message.
pub fn states_to_ros(states: &[VehicleState], now: SystemTime) -> msg::VehicleStates {
    msg::VehicleStates { stamp: time_to_ros(now), states: states.iter().map(state_to_ros).collect() }
}

/// Converts a message to a vehicle's state; groups of values with a zero stamp become `None`.
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

/// Converts an alert to its message.
pub fn alert_to_ros(alert: &Alert) -> msg::VehicleAlert {
    msg::VehicleAlert {
        stamp: time_to_ros(alert.at),
        vehicle: alert.vehicle.clone(),
        condition: alert.condition as u8,
        raised: alert.raised,
        text: alert.text.clone(),
    }
}

/// Converts an order to its message.
pub fn command_to_ros(command: &VehicleCommand, now: SystemTime) -> msg::VehicleCommand {
    msg::VehicleCommand {
        stamp: time_to_ros(now),
        command_id: hex::encode(command.command_id),
        mail_id: command.mail_id.to_string(),
        vehicle: command.vehicle.clone(),
        command: command.command as u8,
        ordered_by: command.ordered_by.clone(),
        ordered_at: time_to_ros(command.ordered_at),
        signature: command.signature.to_vec(),
    }
}

/// Converts a message to an order. The signature is not verified here.
///
/// # Errors
/// Names the field that violates `VehicleCommand.msg`.
pub fn command_from_ros(message: &msg::VehicleCommand) -> Result<VehicleCommand, ConvertError> {
    Ok(VehicleCommand {
        command_id: hex_from_ros("command_id", &message.command_id)?,
        mail_id: id_from_ros("mail_id", &message.mail_id)?,
        vehicle: message.vehicle.clone(),
        command: [Command::Stop, Command::Resume]
            .into_iter()
            .find(|command| *command as u8 == message.command)
            .ok_or_else(|| error("command", message.command, "STOP or RESUME"))?,
        ordered_by: message.ordered_by.clone(),
        ordered_at: time_from_ros(&message.ordered_at),
        signature: bytes_from_ros("signature", &message.signature)?,
    })
}

/// Converts a vehicle's answer to an order to its message.
pub fn acknowledgement_to_ros(
    acknowledgement: &Acknowledgement,
    now: SystemTime,
) -> msg::VehicleAcknowledgement {
    msg::VehicleAcknowledgement {
        stamp: time_to_ros(now),
        command_id: hex::encode(acknowledgement.command_id),
        vehicle: acknowledgement.vehicle.clone(),
        status: acknowledgement.status as u8,
        reason: acknowledgement.reason.clone(),
    }
}

/// Converts a message to a vehicle's answer to an order.
///
/// # Errors
/// Names the field that violates `VehicleAcknowledgement.msg`.
pub fn acknowledgement_from_ros(
    message: &msg::VehicleAcknowledgement,
) -> Result<Acknowledgement, ConvertError> {
    use AcknowledgementStatus::{Accepted, Done, Refused};
    Ok(Acknowledgement {
        command_id: hex_from_ros("command_id", &message.command_id)?,
        vehicle: message.vehicle.clone(),
        status: [Accepted, Done, Refused]
            .into_iter()
            .find(|status| *status as u8 == message.status)
            .ok_or_else(|| error("status", message.status, "ACCEPTED, DONE or REFUSED"))?,
        reason: message.reason.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_acknowledgement_survives_the_graph() {
        let told = Acknowledgement {
            command_id: [7; 32],
            vehicle: "truck_1".into(),
            status: AcknowledgementStatus::Refused,
            reason: "older than the newest order".into(),
        };
        let message = acknowledgement_to_ros(&told, SystemTime::UNIX_EPOCH);
        assert_eq!(message.status, msg::VehicleAcknowledgement::REFUSED as u8);
        assert_eq!(acknowledgement_from_ros(&message), Ok(told));
        let unnamed = msg::VehicleAcknowledgement { command_id: "77".into(), ..message };
        assert!(
            acknowledgement_from_ros(&unnamed)
                .unwrap_err()
                .to_string()
                .starts_with("field 'command_id' = \"77\"")
        );
    }

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
