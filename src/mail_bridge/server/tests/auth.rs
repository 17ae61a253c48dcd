// SPDX-License-Identifier: Apache-2.0
use super::*;

/// A bridge with the account `ada`, password `secret`, beside a certificate.
async fn start_auth(overrides: &[(&str, Value)]) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    write(path.clone(), &format!("ada:{}\n", cheap("secret")));
    let mut all = vec![("auth_users_path", text(path.to_str().unwrap()))];
    all.extend_from_slice(overrides);
    start_tls_in(directory, &all).await
}

/// `\0ada\0secret` and `\0ada\0wrong`.
const RIGHT: &str = "AUTH PLAIN AGFkYQBzZWNyZXQ=\r\n";
const WRONG: &str = "AUTH PLAIN AGFkYQB3cm9uZw==\r\n";

#[tokio::test]
async fn an_own_device_hands_in_mails_with_its_password() {
    let scene = start_auth(&[("require_auth", Value::Bool(true))]).await;
    let plain = TcpStream::connect(scene.bridge.smtps_addr().unwrap()).await.unwrap();
    let mut stream = scene.client().connect("localhost", plain).await.unwrap();
    assert_eq!(talk(&mut stream, &format!("EHLO c\r\nMAIL FROM:<>\r\n{RIGHT}"), 4).await, "220 250 530 235");
    assert_eq!(talk(&mut stream, &format!("{MAIL}hi\r\n.\r\n"), 4).await, "250 250 354 250");
    // LMTP is the gateway's.
    let mut gateway = connect(scene.bridge.lmtp_addr().unwrap()).await;
    let codes = talk(&mut gateway, &format!("LHLO c\r\n{RIGHT}MAIL FROM:<>\r\n"), 3).await;
    assert_eq!(codes, "250 502 250");
}

#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_for_a_while() {
    let scene = start_auth(&[]).await;
    let mut guesses = JoinSet::new();
    for _ in 0..12 {
        let address = scene.smtp();
        guesses.spawn(async move {
            let mut stream = connect(address).await;
            talk(&mut stream, &format!("EHLO c\r\n{WRONG}"), 2).await
        });
    }
    let mut codes = soon(guesses.join_all()).await;
    codes.sort();
    assert_eq!(codes, [vec!["250 454"; 2], vec!["250 535"; 10]].concat());
    assert_eq!(scene.bridge.handle().state().users.unwrap().rejected, 10);
    assert_eq!(talk(&mut connect(scene.smtp()).await, &format!("EHLO c\r\n{RIGHT}"), 2).await, "250 454");
}

#[tokio::test]
async fn accounts_that_others_can_read_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    write(path.clone(), &format!("ada:{}\n", cheap("secret")));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let overrides = [("auth_users_path", text(path.to_str().unwrap()))];
    let error = try_start(directory.path(), &overrides).await.err().unwrap().to_string();
    assert!(error.starts_with("parameter 'auth_users_path': ") && error.contains("has mode 640"), "{error}");
}
