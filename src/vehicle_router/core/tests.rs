// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, time::Duration};

use ::health::Level;
use proptest::prelude::*;
use settings::resolve;

use super::*;
use crate::{extract::Group, params::SPECS};

fn core() -> Core {
    Core::new(&Params::load(&resolve(SPECS, BTreeMap::new()).unwrap()).unwrap(), at(0.0))
}

fn at(seconds: f64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_secs_f64(seconds)
}

fn route(core: &Core, topic: &str) -> usize {
    core.routes().iter().position(|route| route.topic() == topic).unwrap()
}

fn hear(core: &mut Core, route: usize, values: &[f64], now: f64) -> Vec<Effect> {
    core.step(Input::Message { route, values: values.to_vec() }, at(now))
}

fn tick(core: &mut Core, now: f64) -> Vec<Effect> {
    core.step(Input::Tick, at(now))
}

fn charge(core: &mut Core, charge: f64, now: f64) -> Vec<Effect> {
    let route = route(core, "truck_1/battery_state");
    hear(core, route, &[charge, 24.0], now)
}

fn alerts<'a>(effects: &'a [Effect]) -> Vec<(&'a str, Condition, bool)> {
    let alert = |effect: &'a Effect| match effect {
        Effect::Alert(alert) => Some((alert.vehicle.as_str(), alert.condition, alert.raised)),
        Effect::Publish(..) | Effect::PublishAll(_) | Effect::Reject(_) => None,
    };
    effects.iter().filter_map(alert).collect()
}

#[test]
fn routes_every_topic_of_every_vehicle() {
    let core = core();
    assert_eq!(core.routes().len(), 9);
    assert_eq!(core.vehicles(), ["truck_1", "truck_2", "truck_3"]);
    assert!(core.states("").iter().all(|state| *state == VehicleState::unheard(state.vehicle.as_str())));
}

#[test]
fn keeps_the_latest_of_each_group_and_publishes_a_change_once() {
    let mut core = core();
    tick(&mut core, 0.0);
    let (fix, odometry) = (route(&core, "truck_2/fix"), route(&core, "truck_2/odometry"));
    assert_eq!(hear(&mut core, fix, &[0.0, 48.0, 11.0, 520.0], 1.0), []);
    assert_eq!(hear(&mut core, fix, &[0.0, 48.5, 11.5, 521.0], 2.0), []);
    assert_eq!(hear(&mut core, odometry, &[3.0, 4.0], 2.5), []);
    let [state] = &core.states("TRUCK_2")[..] else { panic!("one state") };
    assert_eq!(state.position.map(|p| (p.latitude_deg, p.at)), Some((48.5, at(2.0))));
    assert_eq!(state.motion.map(|m| m.speed_mps), Some(5.0));
    assert_eq!((state.stamp, state.battery), (at(2.5), None));
    let state = state.clone();
    assert_eq!(tick(&mut core, 2.6), [Effect::Publish(1, state), Effect::PublishAll(core.states(""))]);
    assert_eq!(tick(&mut core, 2.7), []);
}

#[test]
fn publishes_at_first_that_nothing_is_known() {
    let mut core = core();
    let states = core.states("");
    let mut expected: Vec<_> =
        states.iter().cloned().enumerate().map(|(place, state)| Effect::Publish(place, state)).collect();
    expected.push(Effect::PublishAll(states));
    assert_eq!(tick(&mut core, 0.0), expected);
}

#[test]
fn answers_for_one_all_or_no_vehicle() {
    let core = core();
    assert_eq!(core.states("").len(), 3);
    assert_eq!(core.states("truck_1").len(), 1);
    assert_eq!(core.states("truck").len(), 0);
}

#[test]
fn raises_and_clears_a_low_battery_with_hysteresis() {
    let mut core = core();
    assert_eq!(alerts(&charge(&mut core, 0.21, 1.0)), []);
    assert_eq!(alerts(&charge(&mut core, 0.20, 2.0)), [("truck_1", Condition::BatteryLow, true)]);
    assert_eq!(alerts(&charge(&mut core, 0.24, 3.0)), []);
    assert_eq!(alerts(&charge(&mut core, 0.19, 4.0)), []);
    assert_eq!(alerts(&charge(&mut core, 0.25, 5.0)), [("truck_1", Condition::BatteryLow, false)]);
    assert_eq!(alerts(&charge(&mut core, 0.21, 6.0)), []);
}

#[test]
fn raises_and_clears_silence() {
    let mut core = core();
    assert_eq!(alerts(&tick(&mut core, 9.9)), []);
    charge(&mut core, 0.9, 9.9);
    let effects = tick(&mut core, 10.0);
    assert_eq!(
        alerts(&effects),
        [("truck_2", Condition::Silent, true), ("truck_3", Condition::Silent, true)]
    );
    assert_eq!(alerts(&tick(&mut core, 11.0)), []);
    let fix = route(&core, "truck_2/fix");
    assert_eq!(hear(&mut core, fix, &[0.0, 0.0, 0.0, 0.0], 12.0), []);
    assert_eq!(alerts(&tick(&mut core, 12.0)), [("truck_2", Condition::Silent, false)]);
}

#[test]
fn a_clock_that_goes_back_makes_nobody_silent() {
    let mut core = core();
    charge(&mut core, 0.9, 5.0);
    assert_eq!(alerts(&core.step(Input::Tick, SystemTime::UNIX_EPOCH)), []);
}

#[test]
fn rejected_values_leave_the_state_but_the_vehicle_is_heard() {
    let mut core = core();
    let battery = route(&core, "truck_1/battery_state");
    charge(&mut core, 0.9, 1.0);
    let before = core.states("truck_1");
    assert!(matches!(hear(&mut core, battery, &[90.0, 24.0], 9.0)[..], [Effect::Reject(_)]));
    assert_eq!(core.states("truck_1"), before);
    assert_eq!(alerts(&tick(&mut core, 12.0)).iter().filter(|alert| alert.0 == "truck_1").count(), 0);
    assert_eq!(hear(&mut core, 99, &[], 1.0), [Effect::Reject(Reject::Route(99))]);
}

#[test]
fn health_names_the_topic_that_is_rejected() {
    let mut core = core();
    let worst = |core: &Core, now| core.health(now).iter().map(|status| status.level).max();
    assert_eq!(worst(&core, at(1.0)), Some(Level::Error));
    for route in 0..core.routes().len() {
        let values = match core.routes()[route].extractor().group {
            Group::Position => vec![0.0, 48.0, 11.0, 520.0],
            Group::Battery => vec![0.8, 24.0],
            Group::Motion => vec![1.0, 0.0],
        };
        assert_eq!(hear(&mut core, route, &values, 1.0), []);
    }
    assert_eq!(worst(&core, at(2.0)), Some(Level::Ok));
    let fix = route(&core, "truck_3/fix");
    assert!(matches!(hear(&mut core, fix, &[-1.0, 0.0, 0.0, 0.0], 2.0)[..], [Effect::Reject(_)]));
    let health = core.health(at(2.0));
    let status = health.iter().find(|status| status.name == "position").unwrap();
    assert_eq!(status.level, Level::Warn);
    assert!(
        status.message.contains("truck_3/fix") && status.message.contains("no fix"),
        "{}",
        status.message
    );
}

proptest! {
    /// Whatever a vehicle sends, states hold valid values only, and each condition is raised and cleared in turn.
    #[test]
    fn states_are_in_range_and_alerts_alternate(
        messages in prop::collection::vec((0usize..10, prop::collection::vec(any::<f64>(), 0..5), 0.0..1.0f64, 0.0..20.0f64), 0..100),
    ) {
        let mut core = core();
        let mut now = 0.0;
        let mut effects = Vec::new();
        for (route, values, plausible, pause) in messages {
            now += pause;
            effects.extend(tick(&mut core, now));
            effects.extend(hear(&mut core, route, &values, now));
            effects.extend(hear(&mut core, route, &[plausible, plausible], now));
        }
        for state in core.states("") {
            prop_assert!(state.position.is_none_or(|p| p.latitude_deg.abs() <= 90.0 && p.longitude_deg.abs() <= 180.0));
            prop_assert!(state.battery.is_none_or(|b| (0.0..=1.0).contains(&b.charge)));
            prop_assert!(state.motion.is_none_or(|m| m.speed_mps.is_finite() && m.speed_mps >= 0.0));
        }
        let mut held = BTreeMap::new();
        for (vehicle, condition, raised) in alerts(&effects) {
            let before = held.insert((vehicle, condition as u8), raised).unwrap_or(false);
            prop_assert_ne!(before, raised);
        }
    }
}
