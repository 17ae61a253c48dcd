// SPDX-License-Identifier: Apache-2.0
//! Keys that other tools have encrypted.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use chain::LedgerKey;
use testbed::project;

/// Has eth-account, on which web3.py stands, make a key and encrypt it; returns the key's address.
fn encrypted_by_eth_account(keystore: &Path, password: &str, kdf: &str) -> String {
    let program = "import json, sys\n\
        from eth_account import Account\n\
        account = Account.create()\n\
        iterations = 262144 if sys.argv[3] == 'pbkdf2' else None\n\
        json.dump(Account.encrypt(account.key, sys.argv[2], sys.argv[3], iterations), open(sys.argv[1], 'w'))\n\
        print(account.address.lower())\n";
    let python = project("target/venv/web3/bin/python");
    let mut command = Command::new(python);
    command.args(["-c", program]).arg(keystore).args([password, kdf]);
    let output = command.output().expect("`make web3` has made the environment");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_keystore_of_another_tool_is_the_key_of_its_account() {
    let dir = tempfile::tempdir().unwrap();
    let (keystore, password) = (dir.path().join("keystore.json"), dir.path().join("password"));
    let private = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    for (kdf, secret) in [("scrypt", "correct horse"), ("pbkdf2", "b\u{fc}cher \u{1f4ef}")] {
        let address = encrypted_by_eth_account(&keystore, secret, kdf);
        fs::write(&password, format!("{secret}\n")).unwrap();
        private(&keystore);
        private(&password);
        let key = LedgerKey::decrypt(&keystore, &password).unwrap();
        assert_eq!(format!("{:?}", key.address()), address, "{kdf}");
        fs::write(&password, format!("{secret} ")).unwrap();
        let refused = LedgerKey::decrypt(&keystore, &password).err().unwrap().to_string();
        assert!(refused.contains("must hold the password of the keystore"), "{refused}");
    }
}
