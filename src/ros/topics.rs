//! Every topic and service, each one constant: name, type, QoS, from whom to whom. `docs/interfaces.md` is made from it.
//!
//! Names are relative: launch chooses the namespace (REP-135). `/diagnostics` is absolute by convention.

use std::marker::PhantomData;

use r2r::{diagnostic_msgs::msg::DiagnosticArray, nav_msgs, sensor_msgs};

use super::{msg, qos::Qos, srv};

/// A topic of messages `T`.
pub struct Topic<T> {
    /// What the documents say of it.
    pub facts: TopicFacts,
    message: PhantomData<fn() -> T>,
}

/// What is to be known of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicFacts {
    /// Name, relative to the namespace. With [`VEHICLE`] in it, each vehicle has one: [`TopicFacts::name_of`].
    pub name: &'static str,
    /// Full name of the message type.
    pub type_name: &'static str,
    /// QoS of publishers and subscriptions.
    pub qos: Qos,
    /// Node that publishes.
    pub from: &'static str,
    /// Nodes that subscribe, or who may.
    pub to: &'static str,
}

/// Stands for a vehicle's name in the name of a topic.
pub const VEHICLE: &str = "{vehicle}";

impl TopicFacts {
    /// Name of the topic of `vehicle`.
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
        Self { facts: TopicFacts { name, type_name, qos, from, to }, message: PhantomData }
    }
}

/// A service of `T`.
pub struct Service<T> {
    /// What the documents say of it.
    pub facts: ServiceFacts,
    service: PhantomData<fn() -> T>,
}

/// What is to be known of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceFacts {
    /// Name, relative to the namespace: the default name of the node that serves it, a slash, and the service.
    pub name: &'static str,
    /// Full name of the service type.
    pub type_name: &'static str,
    /// Node that asks; empty: people and others.
    pub asked_by: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

impl ServiceFacts {
    /// The name as the node that serves it says it: below its own, which launch may have changed.
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
        Self { facts: ServiceFacts { name, type_name, asked_by, purpose }, service: PhantomData }
    }
}

/// Mails with their bytes, until they are settled.
pub const MAIL_RAW: Topic<msg::RawMail> =
    Topic::new("mail/raw", "posthorn/msg/RawMail", Qos::Mail, "mail_bridge", "authenticator");
/// Mails, for people and bags.
pub const MAIL_INBOUND: Topic<msg::Mail> =
    Topic::new("mail/inbound", "posthorn/msg/Mail", Qos::Event, "mail_bridge", "anyone");
/// Mails with the verdict on their sender.
pub const MAIL_AUTHENTICATED: Topic<msg::AuthenticatedMail> = Topic::new(
    "mail/authenticated",
    "posthorn/msg/AuthenticatedMail",
    Qos::Event,
    "authenticator",
    "chatbot, others",
);
/// Proofs that mails are on the ledger.
pub const MAIL_RECEIPTS: Topic<msg::LedgerReceipt> =
    Topic::new("mail/receipts", "posthorn/msg/LedgerReceipt", Qos::Event, "authenticator", "anyone");
/// Mails to be sent.
pub const MAIL_OUTBOUND: Topic<msg::OutboundMail> =
    Topic::new("mail/outbound", "posthorn/msg/OutboundMail", Qos::Event, "chatbot, others", "mail_bridge");
/// What became of inbound mails.
pub const MAIL_DISPOSITIONS: Topic<msg::Disposition> =
    Topic::new("mail/dispositions", "posthorn/msg/Disposition", Qos::Event, "chatbot", "mail_bridge");
/// What became of outbound mails.
pub const MAIL_DELIVERIES: Topic<msg::DeliveryStatus> =
    Topic::new("mail/deliveries", "posthorn/msg/DeliveryStatus", Qos::Event, "mail_bridge", "anyone");
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
/// Conditions of vehicles, raised and cleared.
pub const VEHICLES_ALERTS: Topic<msg::VehicleAlert> =
    Topic::new("vehicles/alerts", "posthorn/msg/VehicleAlert", Qos::State, "vehicle_router", "anyone");
/// Orders to vehicles.
pub const VEHICLES_COMMANDS: Topic<msg::VehicleCommand> =
    Topic::new("vehicles/commands", "posthorn/msg/VehicleCommand", Qos::Event, "chatbot", "vehicles");
/// What vehicles say of orders.
pub const VEHICLES_ACKNOWLEDGEMENTS: Topic<msg::VehicleAcknowledgement> = Topic::new(
    "vehicles/acknowledgements",
    "posthorn/msg/VehicleAcknowledgement",
    Qos::Event,
    "vehicles",
    "chatbot",
);
/// The public key that proves orders.
pub const CHATBOT_ORDER_KEY: Topic<msg::OrderKey> =
    Topic::new("chatbot/order_key", "posthorn/msg/OrderKey", Qos::State, "chatbot", "vehicles");

/// Every topic, in the order of the documents.
pub const TOPICS: [TopicFacts; 14] = [
    MAIL_RAW.facts,
    MAIL_INBOUND.facts,
    MAIL_AUTHENTICATED.facts,
    MAIL_RECEIPTS.facts,
    MAIL_OUTBOUND.facts,
    MAIL_DISPOSITIONS.facts,
    MAIL_DELIVERIES.facts,
    CHATBOT_WORKERS.facts,
    VEHICLE_STATE.facts,
    VEHICLES_STATES.facts,
    VEHICLES_ALERTS.facts,
    VEHICLES_COMMANDS.facts,
    VEHICLES_ACKNOWLEDGEMENTS.facts,
    CHATBOT_ORDER_KEY.facts,
];

/// The bytes of a mail.
pub const GET_RAW: Service<srv::GetRaw::Service> =
    Service::new("mail_bridge/get_raw", "posthorn/srv/GetRaw", "", "the bytes of a mail as received");
/// The receipt of a mail.
pub const PROVE: Service<srv::Prove::Service> = Service::new(
    "authenticator/prove",
    "posthorn/srv/Prove",
    "",
    "the receipt of a mail on the evidence ledger",
);
/// Registers a sender.
pub const REGISTER_SENDER: Service<srv::RegisterSender::Service> = Service::new(
    "authenticator/register_sender",
    "posthorn/srv/RegisterSender",
    "",
    "registers a sender in the contract, or changes its role",
);
/// Revokes a sender.
pub const REVOKE_SENDER: Service<srv::RevokeSender::Service> = Service::new(
    "authenticator/revoke_sender",
    "posthorn/srv/RevokeSender",
    "",
    "revokes a sender in the contract",
);
/// Latest state of vehicles.
pub const GET_STATE: Service<srv::GetState::Service> = Service::new(
    "vehicle_router/get_state",
    "posthorn/srv/GetState",
    "chatbot",
    "the latest state of vehicles",
);

/// Every service, in the order of the documents.
pub const SERVICES: [ServiceFacts; 5] =
    [GET_RAW.facts, PROVE.facts, REGISTER_SENDER.facts, REVOKE_SENDER.facts, GET_STATE.facts];

/// What every node says of itself.
pub(super) const DIAGNOSTICS: Topic<DiagnosticArray> =
    Topic::new("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", Qos::Event, "every node", "anyone");

/// Position of a vehicle.
pub(crate) const FIX: Topic<sensor_msgs::msg::NavSatFix> =
    reading("{vehicle}/fix", "sensor_msgs/msg/NavSatFix");
/// Battery of a vehicle.
pub(crate) const BATTERY_STATE: Topic<sensor_msgs::msg::BatteryState> =
    reading("{vehicle}/battery_state", "sensor_msgs/msg/BatteryState");
/// Motion of a vehicle.
pub(crate) const ODOMETRY: Topic<nav_msgs::msg::Odometry> =
    reading("{vehicle}/odometry", "nav_msgs/msg/Odometry");

/// What a simulated vehicle tells of itself; real ones choose their own topics and types.
pub const READINGS: [TopicFacts; 3] = [FIX.facts, BATTERY_STATE.facts, ODOMETRY.facts];

const fn reading<T>(name: &'static str, type_name: &'static str) -> Topic<T> {
    Topic::new(name, type_name, Qos::Sensor, "fleet_simulator", "vehicle_router")
}
