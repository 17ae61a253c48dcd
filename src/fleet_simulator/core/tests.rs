// SPDX-License-Identifier: Apache-2.0
use std::collections::BTreeMap;

use mail::MailId;
use proptest::prelude::*;
use settings::resolve;
use vehicle::{Command, OrderKey};

use super::{
    AcknowledgementStatus::{Accepted, Done, Refused},
    *,
};
use crate::{
    params::SPECS,
    truck::{ACCELERATION_MPS2, DECELERATION_MPS2},
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn fleet(seed: u64) -> Core {
    let params = Params::load(&resolve(SPECS, BTreeMap::new()).unwrap()).unwrap();
    Core::new(&Params { seed, order_key: Some(key().public()), ..params })
}

fn key() -> OrderKey {
    OrderKey::from_bytes([1; 32])
}

fn order(number: u8, vehicle: &str, command: Command) -> VehicleCommand {
    let mut order = VehicleCommand {
        command_id: [number; 32],
        mail_id: MailId::of(&[number]),
        vehicle: vehicle.into(),
        command,
        ordered_by: "anna@example.org".into(),
        ordered_at: NOW + Duration::from_secs(number.into()),
        signature: [0; 64],
    };
    key().sign(&mut order);
    order
}

fn acknowledged(effects: Vec<Effect>) -> Vec<Acknowledgement> {
    let of =
        |effect| if let Effect::Acknowledge(acknowledgement) = effect { Some(acknowledgement) } else { None };
    effects.into_iter().filter_map(of).collect()
}

fn give(fleet: &mut Core, order: &VehicleCommand) -> Option<Acknowledgement> {
    acknowledged(fleet.step(Input::Order(order.clone()), NOW)).pop()
}

fn status(fleet: &mut Core, order: &VehicleCommand) -> Option<AcknowledgementStatus> {
    give(fleet, order).map(|acknowledgement| acknowledgement.status)
}

/// Lets time pass; returns the ids of the orders that were completed.
fn run(fleet: &mut Core, seconds: u64) -> Vec<[u8; 32]> {
    let half = Input::Elapsed(Duration::from_millis(500));
    let effects = (0..seconds * 2).flat_map(|_| fleet.step(half.clone(), NOW)).collect();
    acknowledged(effects).iter().map(|done| done.command_id).collect()
}

fn truck_1(fleet: &Core) -> Sample {
    fleet.samples().next().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_fleet_bit_for_bit() {
    let at_the_end = |seed| {
        let mut fleet = fleet(seed);
        run(&mut fleet, 600);
        status(&mut fleet, &order(1, "truck_2", Command::Stop));
        run(&mut fleet, 60);
        let bits = |s: Sample| {
            [s.latitude_deg, s.longitude_deg, s.yaw_rad, s.speed_mps, s.charge, s.voltage_v].map(f64::to_bits)
        };
        fleet.samples().map(bits).collect::<Vec<_>>()
    };
    assert_eq!(at_the_end(7), at_the_end(7));
    assert_ne!(at_the_end(7), at_the_end(8));
}

#[test]
fn an_order_stops_and_another_resumes() {
    let mut fleet = fleet(1);
    run(&mut fleet, 60);
    assert!(truck_1(&fleet).speed_mps > 3.0);
    assert_eq!(status(&mut fleet, &order(1, "truck_1", Command::Stop)), Some(Accepted));
    let done = run(&mut fleet, 20);
    let halted = truck_1(&fleet);
    assert_eq!((halted.speed_mps, halted.stopped, done), (0.0, true, vec![[1; 32]]));
    assert!(run(&mut fleet, 20).is_empty());
    let later = truck_1(&fleet);
    assert_eq!((later.latitude_deg, later.longitude_deg), (halted.latitude_deg, halted.longitude_deg));
    assert_eq!(status(&mut fleet, &order(1, "truck_1", Command::Stop)), Some(Done));
    assert_eq!(status(&mut fleet, &order(2, "truck_1", Command::Resume)), Some(Accepted));
    assert_eq!(run(&mut fleet, 20), [[2; 32]]);
    assert!(truck_1(&fleet).speed_mps > 3.0);
}

#[test]
fn an_order_is_carried_out_once_by_its_id() {
    let mut fleet = fleet(1);
    let orders = [order(1, "truck_1", Command::Stop), order(2, "truck_1", Command::Resume)];
    for order in orders.iter().chain(&orders) {
        assert_eq!(status(&mut fleet, order), Some(Accepted));
    }
    assert!(!truck_1(&fleet).stopped);
    assert_eq!(status(&mut fleet, &order(3, "bus", Command::Stop)), None);
}

#[test]
fn an_order_that_is_forged_or_overtaken_is_refused_and_moves_nothing() {
    let mut fleet = fleet(1);
    let mut forged = order(1, "truck_1", Command::Stop);
    OrderKey::from_bytes([2; 32]).sign(&mut forged);
    assert_eq!(status(&mut fleet, &forged), Some(Refused));
    assert_eq!(status(&mut fleet, &order(3, "truck_1", Command::Resume)), Some(Accepted));
    let overtaken = give(&mut fleet, &order(2, "truck_1", Command::Stop)).unwrap();
    assert_eq!((overtaken.status, truck_1(&fleet).stopped), (Refused, false));
    assert_eq!(overtaken.reason, "this vehicle has taken a resume, dated 1 s later");
}

#[test]
fn batteries_discharge_under_way_and_charge_when_low() {
    let mut fleet = fleet(1);
    let (mut was_low, mut charged, mut before) = (false, false, truck_1(&fleet));
    for _ in 0..7200 {
        run(&mut fleet, 1);
        let sample = truck_1(&fleet);
        assert!(
            (0.1..=1.0).contains(&sample.charge) && (20.0..30.0).contains(&sample.voltage_v),
            "{sample:?}"
        );
        assert!(!sample.charging || sample.speed_mps == 0.0);
        if sample.charging == before.charging {
            assert_eq!(
                (sample.charge > before.charge, sample.current_a > 0.0),
                (sample.charging, sample.charging)
            );
        }
        was_low |= sample.charge < 0.16;
        charged |= was_low && sample.charge > 0.89;
        before = sample;
    }
    assert!(was_low && charged);
}

#[test]
fn a_process_that_slept_does_not_catch_up() {
    let (mut a, mut b) = (fleet(1), fleet(1));
    a.step(Input::Elapsed(Duration::from_secs(60)), NOW);
    b.step(Input::Elapsed(Duration::MAX), NOW);
    assert_eq!(truck_1(&a), truck_1(&b));
    b.step(Input::Elapsed(Duration::ZERO), NOW);
    assert_eq!(truck_1(&a), truck_1(&b));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Odometry and position agree, speed changes within its limits, and every truck stays near the origin.
    #[test]
    fn speed_and_position_agree(seed in any::<u64>(), pause in 0u64..300, stop in any::<bool>(), milliseconds in 10u64..1000) {
        let mut fleet = fleet(seed);
        run(&mut fleet, pause);
        if stop {
            status(&mut fleet, &order(1, "truck_1", Command::Stop));
        }
        let dt_s = milliseconds as f64 / 1000.0;
        let before: Vec<_> = fleet.samples().collect();
        fleet.step(Input::Elapsed(Duration::from_millis(milliseconds)), NOW);
        for (before, after) in before.iter().zip(fleet.samples()) {
            let moved = (after.east_m - before.east_m).hypot(after.north_m - before.north_m);
            let bound = (ACCELERATION_MPS2 + DECELERATION_MPS2) * dt_s * dt_s + 0.01;
            prop_assert!((moved - before.speed_mps * dt_s).abs() < bound, "{moved} {before:?}");
            let change = after.speed_mps - before.speed_mps;
            prop_assert!(change <= ACCELERATION_MPS2 * dt_s + 1e-9 && change >= -DECELERATION_MPS2 * dt_s - 1e-9);
            prop_assert!(after.speed_mps >= 0.0 && after.speed_mps < 12.0);
            let turn = (after.yaw_rad - before.yaw_rad).sin().atan2((after.yaw_rad - before.yaw_rad).cos());
            prop_assert!((turn - 0.5 * (before.yaw_rate_radps + after.yaw_rate_radps) * dt_s).abs() < 0.01 * dt_s.max(0.1));
            prop_assert!((after.latitude_deg - 48.137_154).abs() < 0.02 && (after.longitude_deg - 11.576_124).abs() < 0.03);
        }
    }
}
