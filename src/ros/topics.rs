// SPDX-License-Identifier: Apache-2.0
//! Defines every topic and service as one constant: name, type, QoS, publisher and subscribers.
//!
//! `docs/interfaces.md` is generated from these. Names are relative, because launch chooses the namespace (REP-135);
//! `/diagnostics` is absolute by convention.

use std::marker::PhantomData;

use r2r::{diagnostic_msgs::msg::DiagnosticArray, nav_msgs, sensor_msgs};

use super::{msg, qos::Qos, srv};

/// A topic that carries messages of type `T`.
pub struct Topic<T> {
    /// Its entry in the documents.
    pub facts: TopicFacts,
    /// Tells the size of a message, roughly, in bytes.
    pub(super) weigh: fn(&T) -> usize,
}

/// Name, type, QoS and participants of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicFacts {
    /// Name, relative to the namespace. If it contains [`VEHICLE`], each vehicle has its own topic:
    /// [`TopicFacts::name_of`].
    pub name: &'static str,
    /// Full name of the message type.
    pub type_name: &'static str,
    /// QoS profile of its publishers and subscriptions.
    pub qos: Qos,
    /// Node that publishes it.
    pub from: &'static str,
    /// Nodes that subscribe to it, or "anyone".
    pub to: &'static str,
}

/// What a message with a mail weighs beside its text, roughly, bytes.
const SMALL_BYTES: usize = 4096;

/// Size of an outbound mail, roughly, bytes.
pub fn outbound_bytes(mail: &msg::OutboundMail) -> usize {
    let texts = [&mail.text, &mail.subject, &mail.from_address, &mail.message_id, &mail.in_reply_to];
    let lists = mail.to.iter().chain(&mail.reply_to);
    texts.into_iter().chain(lists).map(String::len).sum::<usize>().saturating_add(SMALL_BYTES)
}

/// Placeholder for the vehicle's name in a topic name.
pub const VEHICLE: &str = "{vehicle}";

impl TopicFacts {
    /// The topic's name for one vehicle.
    pub fn name_of(&self, vehicle: &str) -> String {
        self.name.replace(VEHICLE, vehicle)
    }
}

impl<T> Topic<T> {
    const fn new(
        name: &'static str,
        type_name: &'static str,
        qos: Qos,
        from: &'static str,
        to: &'static str,
    ) -> Self {
        Self { facts: TopicFacts { name, type_name, qos, from, to }, weigh: |_| size_of::<T>() }
    }

    /// For messages whose size varies: what is queued of them is bounded in bytes.
    const fn weighed_by(self, weigh: fn(&T) -> usize) -> Self {
        Self { weigh, ..self }
    }
}

/// A service of type `T`.
pub struct Service<T> {
    /// Its entry in the documents.
    pub facts: ServiceFacts,
    /// Number of requests that its server, and of answers that a client, keeps until it takes them.
    pub(super) depth: usize,
    service: PhantomData<fn() -> T>,
}

/// Name, type, client and purpose of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceFacts {
    /// Name, relative to the namespace: the serving node's default name, a slash, and the service's own name.
    pub name: &'static str,
    /// Full name of the service type.
    pub type_name: &'static str,
    /// Node that calls it; empty if only people and other software do.
    pub asked_by: &'static str,
    /// What the service does, as a phrase for the documents.
    pub purpose: &'static str,
}

/// Depth of services whose requests and answers are short. The middleware's default of ten loses messages in a burst.
pub(super) const SERVICE_DEPTH: usize = 1000;

impl ServiceFacts {
    /// The name that the serving node uses: private to the node (`~/…`), because launch may have renamed the node.
    pub(super) fn own_name(&self) -> String {
        self.name.split_once('/').map_or_else(|| self.name.to_owned(), |(_, own)| format!("~/{own}"))
    }
}

impl<T> Service<T> {
    const fn new(
        name: &'static str,
        type_name: &'static str,
        asked_by: &'static str,
        purpose: &'static str,
    ) -> Self {
        let facts = ServiceFacts { name, type_name, asked_by, purpose };
        Self { facts, depth: SERVICE_DEPTH, service: PhantomData }
    }

    /// For long requests: keeps only so many.
    const fn queued(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }
}

/// Mails with their bytes, published again until they are settled.
pub const MAIL_RAW: Topic<msg::RawMail> =
    Topic::new("mail/raw", "posthorn/msg/RawMail", Qos::Mail, "mail_bridge", "authenticator")
        .weighed_by(|mail| mail.data.len().saturating_add(SMALL_BYTES));
/// Mails without their bytes, for people and bags.
pub const MAIL_INBOUND: Topic<msg::Mail> =
    Topic::new("mail/inbound", "posthorn/msg/Mail", Qos::Event, "mail_bridge", "anyone");
/// Mails with the verdict on their sender.
pub const MAIL_AUTHENTICATED: Topic<msg::AuthenticatedMail> = Topic::new(
    "mail/authenticated",
    "posthorn/msg/AuthenticatedMail",
    Qos::Event,
    "authenticator",
    "chatbot, others",
)
.weighed_by(|message| {
    let mail = &message.mail;
    let headers = mail.headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
    let attachments = mail.attachments.iter().map(|one| one.filename.len() + SMALL_BYTES / 16).sum::<usize>();
    mail.text.len().saturating_add(headers).saturating_add(attachments).saturating_add(SMALL_BYTES)
});
/// Proofs that mails, orders and other entries are on the ledger.
pub const MAIL_RECEIPTS: Topic<msg::LedgerReceipt> =
    Topic::new("mail/receipts", "posthorn/msg/LedgerReceipt", Qos::Event, "authenticator", "anyone");
/// Mails to send.
pub const MAIL_OUTBOUND: Topic<msg::OutboundMail> =
    Topic::new("mail/outbound", "posthorn/msg/OutboundMail", Qos::Event, "chatbot, others", "mail_bridge")
        .weighed_by(outbound_bytes);
/// What was done with each inbound mail.
pub const MAIL_DISPOSITIONS: Topic<msg::Disposition> =
    Topic::new("mail/dispositions", "posthorn/msg/Disposition", Qos::Event, "chatbot", "mail_bridge");
/// Delivery status of outbound mails.
pub const MAIL_DELIVERIES: Topic<msg::DeliveryStatus> =
    Topic::new("mail/deliveries", "posthorn/msg/DeliveryStatus", Qos::Event, "mail_bridge", "anyone");
/// How reading mailboxes goes.
pub const MAIL_IMAP: Topic<msg::ImapStatus> =
    Topic::new("mail/imap", "posthorn/msg/ImapStatus", Qos::State, "mail_bridge", "anyone");
/// Heartbeats of chatbot replicas.
pub const CHATBOT_WORKERS: Topic<msg::WorkerStatus> =
    Topic::new("chatbot/workers", "posthorn/msg/WorkerStatus", Qos::State, "chatbot", "anyone");
/// Latest state of one vehicle.
pub const VEHICLE_STATE: Topic<msg::VehicleState> = Topic::new(
    "vehicles/{vehicle}/state",
    "posthorn/msg/VehicleState",
    Qos::State,
    "vehicle_router",
    "anyone",
);
/// Latest states of all vehicles, for overviews.
pub const VEHICLES_STATES: Topic<msg::VehicleStates> =
    Topic::new("vehicles/states", "posthorn/msg/VehicleStates", Qos::State, "vehicle_router", "anyone");
/// Alerts on conditions of vehicles, when raised and when cleared.
pub const VEHICLES_ALERTS: Topic<msg::VehicleAlert> =
    Topic::new("vehicles/alerts", "posthorn/msg/VehicleAlert", Qos::State, "vehicle_router", "anyone");
/// Orders to vehicles.
pub const VEHICLES_COMMANDS: Topic<msg::VehicleCommand> =
    Topic::new("vehicles/commands", "posthorn/msg/VehicleCommand", Qos::Event, "chatbot", "vehicles");
/// Vehicles' answers to orders.
pub const VEHICLES_ACKNOWLEDGEMENTS: Topic<msg::VehicleAcknowledgement> = Topic::new(
    "vehicles/acknowledgements",
    "posthorn/msg/VehicleAcknowledgement",
    Qos::Event,
    "vehicles",
    "chatbot",
);
/// The public key that vehicles verify orders with.
pub const CHATBOT_ORDER_KEY: Topic<msg::OrderKey> =
    Topic::new("chatbot/order_key", "posthorn/msg/OrderKey", Qos::State, "chatbot", "vehicles");

/// Every topic, in the order of the documents.
pub const TOPICS: [TopicFacts; 15] = [
    MAIL_RAW.facts,
    MAIL_INBOUND.facts,
    MAIL_AUTHENTICATED.facts,
    MAIL_RECEIPTS.facts,
    MAIL_OUTBOUND.facts,
    MAIL_DISPOSITIONS.facts,
    MAIL_DELIVERIES.facts,
    MAIL_IMAP.facts,
    CHATBOT_WORKERS.facts,
    VEHICLE_STATE.facts,
    VEHICLES_STATES.facts,
    VEHICLES_ALERTS.facts,
    VEHICLES_COMMANDS.facts,
    VEHICLES_ACKNOWLEDGEMENTS.facts,
    CHATBOT_ORDER_KEY.facts,
];

/// Returns the bytes of a mail as received.
pub const GET_RAW: Service<srv::GetRaw::Service> =
    Service::new("mail_bridge/get_raw", "posthorn/srv/GetRaw", "", "the bytes of a mail as received");
/// Tries a mailbox.
pub const TEST_MAIL_ACCOUNT: Service<srv::TestMailAccount::Service> = Service::new(
    "mail_bridge/test_mail_account",
    "posthorn/srv/TestMailAccount",
    "",
    "connects to a mailbox and counts, and says what is wrong",
);
/// Returns the receipt of a mail, an order or another entry on the evidence ledger.
pub const PROVE: Service<srv::Prove::Service> = Service::new(
    "authenticator/prove",
    "posthorn/srv/Prove",
    "",
    "the receipt of a mail, an order or another entry on the evidence ledger",
);
/// Returns the receipts of entries that follow each other on the evidence ledger.
pub const PROVE_RANGE: Service<srv::ProveRange::Service> = Service::new(
    "authenticator/prove_range",
    "posthorn/srv/ProveRange",
    "",
    "the receipts of entries that follow each other on the evidence ledger",
);
/// Returns the receipt of a block of the embedded chain on a shared chain.
pub const PROVE_BLOCK: Service<srv::ProveBlock::Service> = Service::new(
    "authenticator/prove_block",
    "posthorn/srv/ProveBlock",
    "",
    "the receipt of a block of the embedded chain on the shared chain that it is anchored into",
);
/// Puts entries of other nodes into the evidence ledger's sequence.
pub const RECORD: Service<srv::Record::Service> = Service::new(
    "authenticator/record",
    "posthorn/srv/Record",
    "chatbot",
    "puts entries of other nodes on the evidence ledger; answered when they are on disk",
)
.queued(8);
/// Registers a sender in the contract, or changes its role.
pub const REGISTER_SENDER: Service<srv::RegisterSender::Service> = Service::new(
    "authenticator/register_sender",
    "posthorn/srv/RegisterSender",
    "",
    "registers a sender in the contract, or changes its role",
);
/// Revokes a sender in the contract.
pub const REVOKE_SENDER: Service<srv::RevokeSender::Service> = Service::new(
    "authenticator/revoke_sender",
    "posthorn/srv/RevokeSender",
    "",
    "revokes a sender, at once here and in the contract",
);
/// Lists whom the contract has.
pub const LIST_SENDERS: Service<srv::ListSenders::Service> = Service::new(
    "authenticator/list_senders",
    "posthorn/srv/ListSenders",
    "",
    "whom the contract has, and for what",
);
/// Returns the latest state of vehicles.
pub const GET_STATE: Service<srv::GetState::Service> = Service::new(
    "vehicle_router/get_state",
    "posthorn/srv/GetState",
    "chatbot",
    "the latest state of vehicles",
);

/// Every service, in the order of the documents.
pub const SERVICES: [ServiceFacts; 10] = [
    GET_RAW.facts,
    TEST_MAIL_ACCOUNT.facts,
    PROVE.facts,
    PROVE_RANGE.facts,
    PROVE_BLOCK.facts,
    RECORD.facts,
    REGISTER_SENDER.facts,
    REVOKE_SENDER.facts,
    LIST_SENDERS.facts,
    GET_STATE.facts,
];

/// The statuses of every node.
pub(super) const DIAGNOSTICS: Topic<DiagnosticArray> =
    Topic::new("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", Qos::Event, "every node", "anyone");

/// Position of a vehicle.
pub const FIX: Topic<sensor_msgs::msg::NavSatFix> = reading("{vehicle}/fix", "sensor_msgs/msg/NavSatFix");
/// Battery of a vehicle.
pub const BATTERY_STATE: Topic<sensor_msgs::msg::BatteryState> =
    reading("{vehicle}/battery_state", "sensor_msgs/msg/BatteryState");
/// Motion of a vehicle.
pub const ODOMETRY: Topic<nav_msgs::msg::Odometry> = reading("{vehicle}/odometry", "nav_msgs/msg/Odometry");

/// The topics of a simulated vehicle's sensors; real vehicles choose their own topics and types.
pub const READINGS: [TopicFacts; 3] = [FIX.facts, BATTERY_STATE.facts, ODOMETRY.facts];

const fn reading<T>(name: &'static str, type_name: &'static str) -> Topic<T> {
    Topic::new(name, type_name, Qos::Sensor, "fleet_simulator", "vehicle_router")
}
