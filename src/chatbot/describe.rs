// SPDX-License-Identifier: Apache-2.0
//! Writes values as text for busy people: figure, unit, age, and a warning if the value is old.
//!
//! A value that was never received is said to be so. Which values an answer shows is left to the intents.

use std::time::{Duration, SystemTime};

use vehicle::{Battery, Motion, Position, VehicleState};

/// The time of an answer, and the age beyond which a value is stale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub now: SystemTime,
    pub stale_after: Duration,
}

impl Clock {
    /// Time since `at`; zero if `at` is in the future.
    pub fn age(&self, at: SystemTime) -> Duration {
        self.now.duration_since(at).unwrap_or_default()
    }

    fn ago(&self, at: SystemTime) -> String {
        let age = self.age(at);
        let warning = if age > self.stale_after { " - WARNING: out of date" } else { "" };
        format!("{} ago{warning}", span(age))
    }
}

/// A duration rounded down to the largest unit that gives at least 2.
pub(super) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Six decimals, which is 0.1 m, and never a negative zero.
fn degrees(value: f64) -> String {
    let text = format!("{value:.6}");
    if text == "-0.000000" { "0.000000".to_owned() } else { text }
}

fn speed(motion: &Motion) -> String {
    format!("{:.1} km/h ({:.1} m/s)", motion.speed_mps * 3.6, motion.speed_mps)
}

/// Rounded down, so that a battery at 99.6 % is not shown as full, nor one at 0.6 % as 1 %.
fn charge(battery: &Battery) -> String {
    format!("{:.0} %", (battery.charge * 100.0 + 1e-6).floor())
}

pub(super) fn position(position: Option<&Position>, clock: &Clock) -> String {
    let Some(position) = position else {
        return "Position: never reported\n".to_owned();
    };
    let (latitude, longitude) = (degrees(position.latitude_deg), degrees(position.longitude_deg));
    let altitude = if position.altitude_m.is_finite() {
        format!(", altitude {:.0} m", position.altitude_m)
    } else {
        String::new()
    };
    let ago = clock.ago(position.at);
    // A geo URI (RFC 5870) means WGS 84 by default; map programs such as OpenStreetMap open it.
    format!("Position: {latitude}, {longitude}{altitude}, {ago}\nMap:      geo:{latitude},{longitude}\n")
}

pub(super) fn motion(motion: Option<&Motion>, clock: &Clock) -> String {
    match motion {
        Some(motion) => format!("Speed:    {}, {}\n", speed(motion), clock.ago(motion.at)),
        None => "Speed:    never reported\n".to_owned(),
    }
}

pub(super) fn battery(battery: Option<&Battery>, clock: &Clock) -> String {
    let Some(battery) = battery else {
        return "Battery:  never reported\n".to_owned();
    };
    let voltage =
        if battery.voltage_v.is_finite() { format!(", {:.1} V", battery.voltage_v) } else { String::new() };
    format!("Battery:  {}{voltage}, {}\n", charge(battery), clock.ago(battery.at))
}

/// One line about a vehicle. The age is that of the oldest value, so that none is older than stated.
pub(super) fn line(state: &VehicleState, clock: &Clock) -> String {
    let place = state.position.map(|p| {
        let (latitude, longitude) = (degrees(p.latitude_deg), degrees(p.longitude_deg));
        (format!("geo:{latitude},{longitude}"), p.at)
    });
    let motion = state.motion.map(|motion| (speed(&motion), motion.at));
    let battery = state.battery.map(|battery| (format!("battery {}", charge(&battery)), battery.at));
    let known: Vec<_> = [place, motion, battery].into_iter().flatten().collect();
    match known.iter().map(|(_, at)| *at).min() {
        None => "never reported".to_owned(),
        Some(oldest) => {
            let figures: Vec<_> = known.into_iter().map(|(figure, _)| figure).collect();
            format!("{}, {}", figures.join(", "), clock.ago(oldest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(seconds: u64) -> Clock {
        Clock {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            stale_after: Duration::from_secs(60),
        }
    }

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn tells_position_speed_and_battery_with_units_and_age() {
        let place =
            Position { latitude_deg: 48.137154, longitude_deg: -0.00000001, altitude_m: 519.6, at: AT };
        let text = position(Some(&place), &clock(3));
        assert_eq!(
            text,
            "Position: 48.137154, 0.000000, altitude 520 m, 3 s ago\nMap:      geo:48.137154,0.000000\n"
        );
        let text = motion(Some(&Motion { speed_mps: 5.0, at: AT }), &clock(1));
        assert_eq!(text, "Speed:    18.0 km/h (5.0 m/s), 1 s ago\n");
        let cell = Battery { charge: 0.83, voltage_v: 24.799_999, at: AT };
        assert_eq!(battery(Some(&cell), &clock(0)), "Battery:  83 %, 24.8 V, 0 s ago\n");
        let cell = Battery { charge: 0.996, voltage_v: f64::NAN, at: AT };
        assert_eq!(battery(Some(&cell), &clock(0)), "Battery:  99 %, 0 s ago\n");
    }

    #[test]
    fn says_never_reported_and_warns_of_stale_values() {
        assert_eq!(motion(None, &clock(0)), "Speed:    never reported\n");
        assert_eq!(line(&VehicleState::unheard("a"), &clock(0)), "never reported");
        let text = motion(Some(&Motion { speed_mps: 0.0, at: AT }), &clock(61));
        assert!(text.ends_with("61 s ago - WARNING: out of date\n"), "{text}");
    }

    #[test]
    fn spans_are_in_a_unit_that_people_use() {
        let span = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([span(119), span(120), span(7200), span(172_800)], ["119 s", "2 min", "2 h", "2 d"]);
    }
}
