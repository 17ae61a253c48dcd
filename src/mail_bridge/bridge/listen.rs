// SPDX-License-Identifier: Apache-2.0
//! Starts the servers: what they share, and where each listens.

use std::sync::Arc;

use smtp::session::Protocol;
use tls::server::Server as Tls;
use tokio::sync::watch;

use super::{Bridge, BridgeError};
use crate::{
    budget::Budget,
    guests::Guests,
    journal::Journal,
    params::{Access, Params},
    server::{self, Door},
    users::Users,
};

/// The certificate and the accounts, each if there is one.
type Secrets = (Option<Arc<Tls>>, Option<Arc<Users>>);

/// Reads the certificate and the accounts.
pub(super) fn secrets(access: &Access) -> Result<Secrets, BridgeError> {
    let tls = access.tls.as_ref().map(|files| Tls::new(&files.certificate_path, &files.key_path));
    let users = access.auth_users_path.as_deref().map(Users::new);
    Ok((tls.transpose()?.map(Arc::new), users.transpose()?.map(Arc::new)))
}

impl Bridge {
    pub(super) async fn listen(
        &mut self,
        params: &Params,
        journal: &Journal,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), BridgeError> {
        let settings = Arc::new(server::Settings {
            hostname: params.hostname.as_str().into(),
            limits: params.limits,
            session_timeout: params.session_timeout,
            drain_timeout: params.drain_timeout,
            mail_timeout: params.mail_timeout,
            max_connections: params.max_connections,
            max_connections_per_address: params.max_connections_per_address,
            tls: self.handle.tls.clone(),
            require_tls: params.access.require_tls,
            users: self.handle.users.clone(),
            require_auth: params.access.require_auth,
            accepted_recipients: Arc::clone(&params.access.accepted_recipients),
            allowed_clients: params.access.allowed_clients.clone(),
            proxy_protocol_from: params.access.proxy_protocol_from.clone(),
            counters: Arc::clone(&self.handle.counters),
            consumers: Arc::clone(&self.handle.consumers),
            budget: Budget::new(params.max_receiving_bytes, params.max_connections.saturating_mul(2)),
        });
        let guests = || Guests::new(params.max_connections, params.max_connections_per_address);
        let smtp = Door { protocol: Protocol::Smtp, implicit_tls: false, guests: guests() };
        let smtps = Door { implicit_tls: true, ..smtp.clone() };
        let lmtp = Door { protocol: Protocol::Lmtp, implicit_tls: false, guests: guests() };
        for (door, address, parameter, taken) in [
            (smtp, params.smtp_listen, "smtp_listen", &mut self.smtp_addr),
            (smtps, params.access.smtps_listen, "smtps_listen", &mut self.smtps_addr),
            (lmtp, params.lmtp_listen, "lmtp_listen", &mut self.lmtp_addr),
        ] {
            let Some(address) = address else { continue };
            let listener = server::listen(address, parameter).await?;
            let address = listener.local_addr().map_err(BridgeError::Address)?;
            tracing::info!(%address, parameter, "listening");
            *taken = Some(address);
            let (settings, journal, stopped) = (Arc::clone(&settings), journal.clone(), stopped.clone());
            self.servers.spawn(server::run(listener, door, settings, journal, stopped));
        }
        Ok(())
    }
}
