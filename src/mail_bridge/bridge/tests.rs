// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::params::SPECS;
use settings::{Value, resolve};

mod outbound;

async fn start(directory: &Path) -> (Bridge, Streams) {
    start_with(directory, &[]).await
}

async fn start_with(directory: &Path, overrides: &[(&str, Value)]) -> (Bridge, Streams) {
    let listens = ["smtp_listen", "lmtp_listen"].map(|name| (name, Value::Text("127.0.0.1:0".into())));
    let values = listens.iter().chain(overrides).map(|(name, value)| ((*name).to_owned(), value.clone()));
    let values = resolve(SPECS, values.collect::<BTreeMap<_, _>>()).unwrap();
    Bridge::start(Params::load(&values, directory).unwrap()).await.unwrap()
}

#[tokio::test]
async fn tells_when_any_task_has_ended_and_not_before() {
    let tasks: [fn(&mut Bridge); 4] = [
        |bridge| bridge.servers.abort_all(),
        |bridge| bridge.outbox.abort_all(),
        |bridge| drop(bridge.window.spawn(async { panic!("on purpose") })),
        |bridge| bridge.publisher.abort_all(),
    ];
    for (end, name) in tasks.into_iter().zip(["server", "outbox", "window", "publisher"]) {
        let dir = tempfile::tempdir().unwrap();
        let (mut bridge, _streams) = start(dir.path()).await;
        assert!(timeout(Duration::from_millis(50), bridge.ended()).await.is_err(), "nothing has ended");
        end(&mut bridge);
        let reason = timeout(Duration::from_secs(10), bridge.ended()).await.unwrap().to_string();
        assert!(reason.starts_with(&format!("task '{name}' ended")), "{reason}");
        assert_eq!(reason.contains("on purpose"), name == "window", "{reason}");
        // Once ended, it stays ended.
        timeout(Duration::from_secs(10), bridge.ended()).await.unwrap();
        assert!(!bridge.drain().await);
    }
}

#[tokio::test]
async fn tells_when_the_journal_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bridge, _streams) = start(dir.path()).await;
    bridge.handle.journal.close().await;
    timeout(Duration::from_secs(10), bridge.ended()).await.unwrap();
}
