// SPDX-License-Identifier: Apache-2.0
//! A real IMAP server with mailboxes in a scratch directory: Debian's Dovecot, which `scripts/dovecot` installs.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{PATIENCE, free_port};

/// The password of every user; a user exists as soon as somebody logs in.
pub const PASSWORD: &str = "secret-of-the-tests";

/// Debian's user and group for what must own nothing, for a test that runs as root.
const NOBODY: u32 = 65534;

/// Whether there is a Dovecot on this machine.
pub fn is_there() -> bool {
    ["/usr/sbin/dovecot", "/usr/lib/dovecot/imap"].iter().all(|path| Path::new(path).exists())
}

/// How the server is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// What it says it can do, instead of all that it can.
    pub capabilities: Option<&'static str>,
}

/// A running server; it ends when this is dropped.
pub struct Dovecot {
    directory: TempDir,
    /// Port without TLS at first; it offers STARTTLS.
    pub port: u16,
    /// Port with TLS.
    pub tls_port: u16,
    child: Option<Child>,
    delivered: AtomicU32,
}

impl Dovecot {
    /// Starts a server with a certificate of its own for `localhost`.
    pub fn start(wish: Wish) -> Self {
        let directory = tempfile::Builder::new().prefix("dovecot").tempdir().expect("scratch directory");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
        fs::write(directory.path().join("certificate.pem"), made.cert.pem()).expect("certificate");
        fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).expect("key");
        let mut server = Self {
            directory,
            port: free_port(),
            tls_port: free_port(),
            child: None,
            delivered: AtomicU32::new(0),
        };
        fs::create_dir(server.path("mail")).expect("mail directory");
        server.give_away(&server.path("mail"));
        fs::write(server.path("dovecot.conf"), server.configuration(wish)).expect("configuration");
        server.resume();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The certificate to trust (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.path("certificate.pem")
    }

    fn configuration(&self, wish: Wish) -> String {
        let here = self.directory.path().display();
        let user = rustix::process::geteuid();
        let (name, uid, gid) = if user.is_root() {
            ("nobody".to_owned(), NOBODY, NOBODY)
        } else {
            let id = Command::new("id").arg("-un").output().expect("id").stdout;
            let name = String::from_utf8(id).expect("UTF-8").trim().to_owned();
            (name, user.as_raw(), rustix::process::getegid().as_raw())
        };
        let (port, tls_port) = (self.port, self.tls_port);
        let capabilities =
            wish.capabilities.map_or(String::new(), |words| format!("imap_capability = {words}\n"));
        format!(
            "base_dir = {here}/run\nstate_dir = {here}/state\nlog_path = {here}/log\nprotocols = imap\nlisten = 127.0.0.1\n{capabilities}\
             ssl = yes\nssl_cert = <{here}/certificate.pem\nssl_key = <{here}/key.pem\nssl_dh =\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
             default_internal_user = {name}\ndefault_login_user = {name}\ndefault_internal_group =\n\
             mail_location = maildir:{here}/mail/%u\nfirst_valid_uid = 1\nmaildir_very_dirty_syncs = no\n\
             passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
             userdb {{\n driver = static\n args = uid={uid} gid={gid} home={here}/mail/%u\n}}\n\
             mail_max_userip_connections = 1000\n\
             service imap-login {{\n chroot =\n process_limit = 200\n inet_listener imap {{\n port = {port}\n }}\n \
             inet_listener imaps {{\n port = {tls_port}\n ssl = yes\n }}\n}}\n\
             service anvil {{\n chroot =\n}}\nservice stats {{\n chroot =\n}}\n",
        )
    }

    /// Starts the server again at the same ports.
    pub fn resume(&mut self) {
        assert!(is_there(), "no Dovecot: run scripts/dovecot, as make test does");
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(self.path("dovecot.conf")).process_group(0);
        // It logs to standard error until it has read its configuration.
        let log = fs::File::options().append(true).create(true).open(self.path("log")).expect("log");
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("dovecot"));
        let deadline = Instant::now() + PATIENCE;
        while [self.port, self.tls_port]
            .iter()
            .any(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_err())
        {
            assert!(Instant::now() < deadline, "Dovecot does not start: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Ends the server and all its sessions.
    pub fn pause(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It is the leader of its group; sessions that wait would outlive it by seconds.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("pid");
        let _ = kill_process(group, Signal::TERM);
        let _ = child.wait();
        let _ = kill_process_group(group, Signal::KILL);
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn folder(&self, user: &str, folder: &str) -> PathBuf {
        let mailbox = self.path("mail").join(user);
        if folder == "INBOX" { mailbox } else { mailbox.join(format!(".{folder}")) }
    }

    /// Puts a message into a folder, as a mail server does that delivers to a Maildir.
    pub fn deliver(&self, user: &str, folder: &str, data: &[u8]) {
        self.deliver_all(user, folder, [data]);
    }

    /// Puts many messages into a folder.
    pub fn deliver_all<D: AsRef<[u8]>>(
        &self,
        user: &str,
        folder: &str,
        messages: impl IntoIterator<Item = D>,
    ) {
        let directory = self.folder(user, folder);
        for part in ["cur", "new", "tmp"] {
            if !directory.join(part).exists() {
                fs::create_dir_all(directory.join(part)).expect("Maildir");
            }
        }
        self.give_away(&self.path("mail").join(user));
        for data in messages {
            let number = self.delivered.fetch_add(1, Ordering::Relaxed);
            // In the order of their names, as time goes.
            let name = format!("{}.M{number:06}.test", 1_700_000_000 + number);
            let draft = directory.join("tmp").join(&name);
            fs::write(&draft, data).expect("message");
            self.give_away(&draft);
            fs::rename(draft, directory.join("new").join(&name)).expect("message");
        }
    }

    /// What a folder has on disk: flags and bytes of each message.
    pub fn messages(&self, user: &str, folder: &str) -> Vec<(String, Vec<u8>)> {
        let directory = self.folder(user, folder);
        let mut files: Vec<_> = ["cur", "new"]
            .iter()
            .filter_map(|part| fs::read_dir(directory.join(part)).ok())
            .flatten()
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
        let flags = |path: &Path| {
            path.to_string_lossy().split_once(":2,").map_or(String::new(), |(_, flags)| flags.to_owned())
        };
        files.iter().map(|path| (flags(path), fs::read(path).expect("message"))).collect()
    }

    /// Gives all messages of a folder new UIDs, as a restore from a backup does.
    pub fn renumber(&mut self, user: &str, folder: &str) {
        self.pause();
        for entry in fs::read_dir(self.folder(user, folder)).expect("folder") {
            let path = entry.expect("entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dovecot")) {
                fs::remove_file(path).expect("index");
            }
        }
        // UIDVALIDITY is the time in seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        self.resume();
    }

    fn give_away(&self, path: &Path) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        chown(path, Some(NOBODY), Some(NOBODY)).expect("owner");
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("directory") {
                self.give_away(&entry.expect("entry").path());
            }
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.pause();
    }
}
