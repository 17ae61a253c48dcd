// SPDX-License-Identifier: Apache-2.0
//! Subscribes to any installed message type by name, through rclrs's dynamic messages; r2r knows only the types that
//! were installed when it was built.
//!
//! rclrs needs its own context and node, so there is one more node in the graph. It is hidden (its name begins with an
//! underscore) and named after the r2r node: `_vehicle_router_subscriptions`. Only number fields are read, by their
//! path.

use std::{future::Future, io, sync::Arc, thread::JoinHandle};

use rclrs::{
    Context, CreateBasicExecutor, DynamicMessage, Executor, ExecutorCommands, InitOptions, IntoNodeOptions,
    MessageInfo, MessageTypeName, QoSProfile, RclrsError, SimpleValue, SpinOptions, SubscriptionOptions,
    Value,
};

use super::{RosError, closing::Deferred, graph::Graph, runtime::NodeError, supervisor::watched_thread};

/// The executor's thread and task.
const SPIN: &str = "rclrs spin";

/// Longest name of a topic with its namespace, bytes (`RMW_TOPIC_MAX_NAME_LENGTH`): the 255 of DDS less prefixes.
const MAX_FULL_NAME_BYTES: usize = 247;

/// One subscription: the topic, its type and the number fields to read.
#[derive(Clone, Debug)]
pub struct NumberSubscription {
    /// Topic name, relative to the namespace.
    pub topic: String,
    /// Full name of the message type, such as `sensor_msgs/msg/NavSatFix`.
    pub type_name: String,
    /// Paths of the fields to read, such as `twist.twist.linear.x`.
    pub fields: &'static [&'static str],
}

/// Handle to the running subscriptions. Dropping it stops the executor and waits for its thread; the runtime then ends
/// the subscriptions.
pub struct DynamicSubscriptions {
    commands: Arc<ExecutorCommands>,
    thread: Option<JoinHandle<()>>,
    /// rclrs ends a subscription, and with the last of them the node, when its last handle is dropped.
    _subscriptions: Deferred<Vec<rclrs::DynamicSubscription>>,
}

/// Subscribes, and calls `receive` on a separate thread with the subscription's index in the list and the numbers in
/// the order of its fields. A field that is missing, or is neither a double nor a number of at most 32 bits, fails
/// here, not when the first message arrives. The executor is one of the tasks of `graph`'s node.
///
/// # Errors
/// [`RosError::Dynamic`], which names the topic and what is wrong with it.
pub fn subscribe(
    graph: &mut Graph,
    subscriptions: &[NumberSubscription],
    receive: impl Fn(usize, Vec<f64>) + Clone + Send + Sync + 'static,
) -> Result<DynamicSubscriptions, RosError> {
    let name = format!("_{}_subscriptions", graph.name());
    let of_node = |error: RclrsError| RosError::Dynamic {
        topic: name.clone(),
        type_name: "node".to_owned(),
        reason: error.to_string(),
    };
    let context = Context::new(remappings(std::env::args()), InitOptions::default()).map_err(of_node)?;
    let executor = graph.closing().defer(context.create_basic_executor());
    // Its parameter services end with this function; the node itself lives as long as a subscription.
    let node = executor.create_node(name.as_str().namespace(&graph.namespace())).map_err(of_node)?;

    let mut handles = graph.closing().defer(Vec::with_capacity(subscriptions.len()));
    for (place, subscription) in subscriptions.iter().enumerate() {
        let error = |reason: String| RosError::Dynamic {
            topic: subscription.topic.clone(),
            type_name: subscription.type_name.clone(),
            reason,
        };
        check_length(&graph.namespace(), &subscription.topic).map_err(error)?;
        let type_name =
            MessageTypeName::try_from(subscription.type_name.as_str()).map_err(|e| error(e.to_string()))?;
        let empty = DynamicMessage::new(type_name.clone()).map_err(|e| error(e.to_string()))?;
        let fields = subscription.fields;
        if let Some(missing) = fields.iter().find(|path| number(&empty, path).is_none()) {
            return Err(error(format!("no number field '{missing}'")));
        }
        let receive = receive.clone();
        let mut options = SubscriptionOptions::new(&subscription.topic);
        options.qos = QoSProfile::sensor_data_default();
        let handle = node
            .create_dynamic_subscription(
                type_name,
                options,
                move |message: DynamicMessage, _: MessageInfo| {
                    receive(place, fields.iter().filter_map(|path| number(&message, path)).collect());
                },
            )
            .map_err(|e| error(e.to_string()))?;
        handles.push(handle);
    }

    let commands = Arc::clone(executor.commands());
    let (thread, ended) = spin(executor).map_err(|error| RosError::Dynamic {
        topic: name,
        type_name: "thread".to_owned(),
        reason: error.to_string(),
    })?;
    graph.watch(SPIN, ended);
    Ok(DynamicSubscriptions { commands, thread: Some(thread), _subscriptions: handles })
}

/// Spins `executor` on its own thread; the returned future ends as the thread does.
fn spin(
    mut executor: Deferred<Executor>,
) -> io::Result<(JoinHandle<()>, impl Future<Output = Result<(), NodeError>> + Send + 'static)> {
    watched_thread(SPIN, move || match executor.spin(SpinOptions::default()).into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    })
}

impl Drop for DynamicSubscriptions {
    fn drop(&mut self) {
        self.commands.halt_spinning();
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics.
            let _ = thread.join();
        }
    }
}

/// Checks that a topic still has a name that DDS allows when it is in this namespace.
fn check_length(namespace: &str, topic: &str) -> Result<(), String> {
    let name = if topic.starts_with('/') {
        topic.to_owned()
    } else {
        format!("{}/{topic}", namespace.trim_end_matches('/'))
    };
    match name.len() {
        ..=MAX_FULL_NAME_BYTES => Ok(()),
        bytes => Err(format!(
            "its full name '{name}' has {bytes} bytes, at most {MAX_FULL_NAME_BYTES} are possible; shorten the \
             namespace or the topic"
        )),
    }
}

/// Remapping rules for topics and the security enclave from the command line, which apply to this node too. Rules for
/// the node's name and namespace, and parameters, are left out: they belong to the r2r node.
fn remappings(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = vec!["posthorn".to_owned(), "--ros-args".to_owned()];
    // ROS arguments begin after `--ros-args` and end with `--`, any number of times.
    let mut for_ros = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--ros-args" => for_ros = true,
            "--" => for_ros = false,
            "-r" | "--remap" if for_ros => {
                if let Some(rule) = arguments.next().filter(|rule| !renames_node(rule)) {
                    kept.extend([argument, rule]);
                }
            }
            "-e" | "--enclave" if for_ros => {
                if let Some(enclave) = arguments.next() {
                    kept.extend([argument, enclave]);
                }
            }
            _ => {}
        }
    }
    kept
}

/// Whether a remapping rule, such as `__ns:=/fleet` or `router:__node:=other`, sets a node's name or namespace.
fn renames_node(rule: &str) -> bool {
    let from = rule.split_once(":=").map_or(rule, |(from, _)| from);
    let name = from.rsplit_once(':').map_or(from, |(_, name)| name);
    ["__name", "__node", "__ns"].contains(&name)
}

/// The number at `path`, or `None` if there is none or a double cannot hold its type exactly.
fn number(message: &DynamicMessage, path: &str) -> Option<f64> {
    let mut names = path.split('.');
    let mut value = message.get(names.next()?)?;
    for name in names {
        value = match value {
            Value::Simple(SimpleValue::Message(view)) => view.get(name)?,
            _ => return None,
        };
    }
    match value {
        Value::Simple(SimpleValue::Double(value)) => Some(*value),
        Value::Simple(SimpleValue::Float(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Int8(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Uint8(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Int16(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Uint16(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Int32(value)) => Some(f64::from(*value)),
        Value::Simple(SimpleValue::Uint32(value)) => Some(f64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{closing::Closing, supervisor::Supervisor};

    fn kept(arguments: &str) -> String {
        let kept = remappings(arguments.split_whitespace().map(str::to_owned));
        assert_eq!(kept[..2], ["posthorn", "--ros-args"]);
        kept[2..].join(" ")
    }

    #[test]
    fn topics_and_the_enclave_are_remapped_and_the_node_is_not() {
        let rules = "--ros-args -r a:=b --remap /c:=d -e /fleet/router -r router:e:=f";
        assert_eq!(kept(&format!("router {rules}")), rules.trim_start_matches("--ros-args "));
        assert_eq!(kept("router --ros-args -r __ns:=/x -r __node:=y -r router:__name:=z -p a:=1"), "");
    }

    #[test]
    fn a_name_that_only_looks_like_a_rule_for_the_node_is_kept() {
        let rules = "-r fix:=/a__nb/fix --enclave /posthorn__new -r a:=__nothing";
        assert_eq!(kept(&format!("router --ros-args {rules}")), rules);
    }

    #[test]
    fn what_follows_the_end_of_the_ros_arguments_is_not_for_ros() {
        assert_eq!(
            kept("router -r a:=b --ros-args -r c:=d -- -r e:=f -e g --ros-args -r h:=i"),
            "-r c:=d -r h:=i"
        );
    }

    /// Runs `work` on the thread of an executor, and returns the reason with which a node would end.
    async fn reason(work: impl FnOnce(&ExecutorCommands) + Send + 'static) -> String {
        let executor = Context::default().create_basic_executor();
        let commands = Arc::clone(executor.commands());
        let on_thread = Arc::clone(&commands);
        // Nobody waits for what the task returns.
        drop(commands.run(async move { work(&on_thread) }));
        let (_, ended) = spin(Closing::default().defer(executor)).unwrap();
        let mut supervisor = Supervisor::default();
        supervisor.watch(SPIN, ended);
        let ended = timeout(Duration::from_secs(10), supervisor.ended()).await.expect("it has not ended");
        commands.halt_spinning();
        ended.to_string()
    }

    #[tokio::test]
    async fn an_executor_that_ends_is_noticed() {
        assert_eq!(reason(ExecutorCommands::halt_spinning).await, "task 'rclrs spin' ended before its node");
    }

    #[tokio::test]
    async fn a_callback_that_panics_ends_the_executor_and_is_noticed() {
        assert_eq!(reason(|_| panic!("on purpose")).await, "task 'rclrs spin' panicked: on purpose");
    }

    #[test]
    fn a_topic_is_as_long_as_its_full_name() {
        let (topic, full) = ("t".repeat(240), "t".repeat(246));
        assert_eq!(check_length("/", &full), Ok(()));
        assert_eq!(check_length("/fleet", &topic), Ok(()));
        assert_eq!(check_length("/a/long/namespace", &format!("/{full}")), Ok(()));
        let error = check_length("/fleet1", &topic).unwrap_err();
        assert!(error.contains(&format!("'/fleet1/{topic}' has 248 bytes, at most 247")), "{error}");
        assert!(check_length("/", &format!("/{full}t")).is_err());
    }
}
