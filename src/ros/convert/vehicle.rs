// SPDX-License-Identifier: Apache-2.0
//! Converts `VehicleState`, `VehicleStates`, `VehicleAlert`, `VehicleCommand` and `VehicleAcknowledgement`.

use std::{ops::RangeInclusive, time::SystemTime};

use r2r::builtin_interfaces::msg::Time;
use vehicle::{
    Acknowledgement, AcknowledgementStatus, Alert, Battery, Command, MAX_NAME_BYTES, Motion, Position,
    VehicleCommand, VehicleState, is_name,
};

use super::{ConvertError, bytes_from_ros, error, hex_from_ros, id_from_ros, time_from_ros, time_to_ros};
use crate::{msg, srv};

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

/// Converts an answer of vehicle_router to the states in it and the names of all its vehicles.
///
/// # Errors
/// Names the field that violates `GetState.srv` or `VehicleState.msg`.
pub fn fleet_from_ros(
    answer: &srv::GetState::Response,
) -> Result<(Vec<VehicleState>, Vec<String>), ConvertError> {
    let states = answer.states.iter().map(state_from_ros).collect::<Result<_, _>>()?;
    let vehicles = answer.vehicles.iter().map(|name| name_from_ros("vehicles", name));
    Ok((states, vehicles.collect::<Result<_, _>>()?))
}

/// Groups of values with a zero stamp become `None`, whatever they hold.
fn state_from_ros(state: &msg::VehicleState) -> Result<VehicleState, ConvertError> {
    let received = |stamp: &Time| Some(time_from_ros(stamp)).filter(|at| *at != SystemTime::UNIX_EPOCH);
    let position = |at| {
        Ok(Position {
            latitude_deg: within("latitude", state.latitude, -90.0..=90.0, "-90 to 90")?,
            longitude_deg: within("longitude", state.longitude, -180.0..=180.0, "-180 to 180")?,
            altitude_m: within_or_nan("altitude", state.altitude, f64::MIN..=f64::MAX, "finite, or NaN")?,
            at,
        })
    };
    let battery = |at| {
        Ok(Battery {
            charge: within("battery_charge", state.battery_charge, 0.0..=1.0, "0 to 1")?,
            voltage_v: within_or_nan(
                "battery_voltage",
                state.battery_voltage,
                0.0..=f64::MAX,
                "finite and not negative, or NaN",
            )?,
            at,
        })
    };
    let motion = |at| {
        let speed_mps = within("speed", state.speed, 0.0..=f64::MAX, "finite and not negative")?;
        Ok(Motion { speed_mps, at })
    };
    Ok(VehicleState {
        vehicle: name_from_ros("vehicle", &state.vehicle)?,
        stamp: time_from_ros(&state.stamp),
        position: received(&state.position_stamp).map(position).transpose()?,
        battery: received(&state.battery_stamp).map(battery).transpose()?,
        motion: received(&state.odometry_stamp).map(motion).transpose()?,
    })
}

fn name_from_ros(field: &'static str, name: &str) -> Result<String, ConvertError> {
    if is_name(name) {
        return Ok(name.to_owned());
    }
    // A name of any length would fill the log.
    let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
    Err(error(field, format!("{shown:?}"), "one word of a ROS name, of at most 128 bytes"))
}

fn within(
    field: &'static str,
    value: f64,
    bounds: RangeInclusive<f64>,
    rule: &'static str,
) -> Result<f64, ConvertError> {
    if bounds.contains(&value) { Ok(value) } else { Err(error(field, value, rule)) }
}

fn within_or_nan(
    field: &'static str,
    value: f64,
    bounds: RangeInclusive<f64>,
    rule: &'static str,
) -> Result<f64, ConvertError> {
    if value.is_nan() { Ok(value) } else { within(field, value, bounds, rule) }
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
        assert_eq!(state_from_ros(&state_to_ros(&state)), Ok(state.clone()));
        state.stamp = at;
        state.battery = Some(Battery { charge: 0.5, voltage_v: 48.0, at });
        assert_eq!(state_from_ros(&state_to_ros(&state)), Ok(state.clone()));
        assert!(state_to_ros(&state).latitude.is_nan());
    }

    /// A state with every value, as a message.
    fn full() -> msg::VehicleState {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        state_to_ros(&VehicleState {
            position: Some(Position { latitude_deg: 48.1, longitude_deg: 11.6, altitude_m: f64::NAN, at }),
            battery: Some(Battery { charge: 0.5, voltage_v: f64::NAN, at }),
            motion: Some(Motion { speed_mps: 5.0, at }),
            ..VehicleState::unheard("truck_1")
        })
    }

    #[test]
    fn a_state_with_an_impossible_value_is_an_error_that_names_the_field() {
        assert!(state_from_ros(&full()).is_ok());
        type Change = fn(&mut msg::VehicleState, f64);
        let fields: [(&str, Change, &[f64]); 6] = [
            ("latitude", |state, value| state.latitude = value, &[f64::NAN, -90.1, 91.0]),
            ("longitude", |state, value| state.longitude = value, &[f64::NAN, -180.1, f64::INFINITY]),
            ("altitude", |state, value| state.altitude = value, &[f64::INFINITY, f64::NEG_INFINITY]),
            ("battery_charge", |state, value| state.battery_charge = value, &[f64::NAN, -0.1, 83.0]),
            ("battery_voltage", |state, value| state.battery_voltage = value, &[-1.0, f64::INFINITY]),
            ("speed", |state, value| state.speed = value, &[f64::NAN, -1.0, f64::INFINITY]),
        ];
        for (field, change, values) in fields {
            for &value in values {
                let mut state = full();
                change(&mut state, value);
                let error = state_from_ros(&state).unwrap_err().to_string();
                assert!(error.starts_with(&format!("field '{field}' = {value}: must be ")), "{error}");
            }
        }
    }

    #[test]
    fn a_vehicle_has_a_name_that_it_could_be_configured_with() {
        let long = "a".repeat(100_000);
        for name in ["", "truck 1", "truck\r\nBcc: x", "truck\u{202e}1", &long] {
            let state = msg::VehicleState { vehicle: name.to_owned(), ..full() };
            let error = state_from_ros(&state).unwrap_err().to_string();
            assert!(error.starts_with("field 'vehicle' = \"") && error.len() < 300, "{error}");
            let answer = |states, vehicles| srv::GetState::Response { states, vehicles };
            assert!(fleet_from_ros(&answer(vec![state], Vec::new())).is_err());
            let error = fleet_from_ros(&answer(vec![full()], vec![name.to_owned()])).unwrap_err();
            assert!(error.to_string().starts_with("field 'vehicles' = \""), "{error}");
        }
    }
}
