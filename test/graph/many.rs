// SPDX-License-Identifier: Apache-2.0
//! More vehicles than any queue is deep.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;
use testbed::{domain::Domain, node::Node, project};

const VEHICLES: usize = 500;

/// When the states of all vehicles shared one topic of depth 5, a subscriber saw only the last five of each burst.
#[test]
fn a_reader_with_default_qos_sees_every_one_of_500_vehicles() {
    let domain = Domain::take();
    let names: Vec<_> = (0..VEHICLES).map(|number| format!("v{number}")).collect();
    let names = serde_json::to_string(&names).unwrap();
    let routes = r#"["{vehicle}/fix sensor_msgs/msg/NavSatFix"]"#;
    let mut router = Node::start("vehicle_router", &domain, &[("vehicles", &names), ("routes", routes)]);
    router.wait_for_log("listening topics=");
    let began = router.cpu_ticks();
    let look = Command::new("python3")
        .arg(project("test/graph/many.py"))
        .arg(VEHICLES.to_string())
        .envs(domain.environment())
        .stdout(Stdio::piped())
        .spawn();
    let mut look = look.expect("python3");
    let mut lines = BufReader::new(look.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("many.py says why on standard error").expect("line");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()["ready"], true);
    let seen = next();
    println!("{seen}, {} ticks of the router", router.cpu_ticks() - began);
    assert!(look.wait().expect("wait").success());
    assert_eq!((seen["own"].as_u64(), seen["overview"].as_u64()), (Some(500), Some(500)), "{seen}");
}
