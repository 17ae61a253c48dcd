// SPDX-License-Identifier: Apache-2.0
//! A node's `main`: arguments, parameters, logs, signals, drain, exit code.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | drained after SIGINT or SIGTERM, or printed `--help` or `--version` |
//! | 1 | the node or one of its tasks failed, or it did not drain in time; the last line on stderr says why |
//! | 2 | invalid arguments or parameters; stderr names the argument, or the parameter, its value and the rule |

use std::{
    env,
    error::Error,
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use signal_hook::low_level;

pub use super::signals::Shutdown;
use super::{
    closing::Closing,
    graph::Graph,
    logging, params,
    signals::{Signals, in_time},
};
use settings::{DRAIN_TIMEOUT, Group, ParamError, Spec, Values, resolve_groups};

/// How long the middleware may take to close.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// The error that a node ends with: its own error type, boxed once, at the top.
pub type NodeError = Box<dyn Error + Send + Sync>;

/// A node's name, purpose and parameter table. The table MUST contain `drain_timeout_s`.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts {
    /// Name of the node and of its executable.
    pub name: &'static str,
    /// The node's purpose in one sentence, for `--help`.
    pub about: &'static str,
    /// The node's parameter table.
    pub specs: &'static [Spec],
    /// Its parameters that repeat for each name in a list.
    pub groups: &'static [Group],
}

impl NodeFacts {
    /// Every parameter for the documents; one that repeats is `imap.<name>.host`.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &'static Spec)> {
        let own = self.specs.iter().map(|spec| (spec.name.to_owned(), spec));
        let grouped = self
            .groups
            .iter()
            .flat_map(|group| group.members.iter().map(|spec| (group.full_name("<name>", spec.name), spec)));
        own.chain(grouped)
    }
}

/// Runs a node from start to exit. `load` builds its typed parameters; the path it gets is the node's default state
/// directory, used unless a parameter names another. `node` is the node itself and returns when it has drained.
pub fn run<P, F>(
    facts: NodeFacts,
    load: impl FnOnce(&Values, &Path) -> Result<P, ParamError>,
    node: impl FnOnce(Graph, P, Shutdown) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), NodeError>>,
{
    if let Err(clap) = command_line(facts).try_get_matches_from(own_arguments(env::args())) {
        // clap knows where its output belongs: help on stdout, a mistake on stderr.
        let _ = clap.print();
        return ExitCode::from(if clap.use_stderr() { 2 } else { 0 });
    }
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("{}: signals cannot be received: {error}", facts.name);
            return ExitCode::FAILURE;
        }
    };
    let closing = Closing::default();
    let code = match start(facts, load, node, signals.shutdown(), &closing) {
        Ok(()) => 0,
        Err(error) => {
            let words = with_sources(error.as_ref());
            if error.is::<ArgumentError>() {
                // The log is not installed yet.
                eprintln!("{}: {words}", facts.name);
            }
            tracing::error!("{words}");
            if error.is::<ParamError>() || error.is::<ArgumentError>() { 2 } else { 1 }
        }
    };
    signals.release();
    if !closing.close(CLOSING_PATIENCE) {
        in_time(|| {
            // Debug, because nobody need do anything, and the last line tells why the node ended.
            tracing::debug!("the middleware has not closed within {CLOSING_PATIENCE:?}: ended without it")
        });
        // Destructors would wait for what the middleware holds.
        end(code);
    }
    ExitCode::from(code)
}

fn start<P, F>(
    facts: NodeFacts,
    load: impl FnOnce(&Values, &Path) -> Result<P, ParamError>,
    node: impl FnOnce(Graph, P, Shutdown) -> F,
    shutdown: Shutdown,
    closing: &Closing,
) -> Result<(), NodeError>
where
    F: Future<Output = Result<(), NodeError>>,
{
    let context = create_context()?;
    let created = r2r::Node::create(context, facts.name, "");
    let node_handle = created.map_err(|source| super::RosError::Node { name: facts.name, source })?;
    let mut graph = Graph::new(node_handle, closing);
    logging::install(&mut graph)?;
    let values = resolve_groups(facts.specs, facts.groups, params::overrides(&mut graph))?;
    for (name, value) in values.foreign() {
        tracing::warn!(
            "parameter '{name}' = {value}: this node has none of this name; see {} --help",
            facts.name
        );
    }
    let parameters = load(&values, &default_state_directory(&graph.namespace(), &graph.name()))?;
    let drain_timeout = values.seconds(DRAIN_TIMEOUT)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        params::declare(&mut graph, &values)?;
        let mut requested = shutdown.clone();
        let overdue = async {
            requested.requested().await;
            tokio::time::sleep(drain_timeout).await;
        };
        tokio::select! {
            result = node(graph, parameters, shutdown) => result,
            () = overdue => Err(format!("not drained within {drain_timeout:?} ({DRAIN_TIMEOUT})").into()),
        }
    });
    runtime.shutdown_background();
    if result.is_ok() {
        tracing::info!("drained");
    }
    result
}

/// Joins the graph with a node for one errand: it has no parameters, no logs on `/rosout` and no signals. `namespace`
/// begins with a slash. The middleware may still be closing when this returns, so end the process with [`end`].
///
/// # Errors
/// If ROS or the middleware cannot be set up; and those of `errand`.
pub fn visit<T>(
    name: &'static str,
    namespace: &str,
    errand: impl AsyncFnOnce(Graph) -> Result<T, NodeError>,
) -> Result<T, NodeError> {
    let closing = Closing::default();
    let created = r2r::Node::create(create_context()?, name, namespace);
    let graph = Graph::new(created.map_err(|source| super::RosError::Node { name, source })?, &closing);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let result = runtime.block_on(errand(graph));
    closing.close(CLOSING_PATIENCE);
    result
}

/// Ends the process without running destructors, which would wait for what a middleware that does not close holds.
pub fn end(code: u8) {
    low_level::exit(i32::from(code));
}

/// Where the node `name` in `namespace` keeps its state unless a parameter says otherwise, if this user runs it.
pub fn default_state_directory(namespace: &str, name: &str) -> PathBuf {
    state_directory(&state_home(), namespace, name)
}

/// ROS arguments that the node cannot start with.
#[derive(Debug, thiserror::Error)]
enum ArgumentError {
    /// rcl's own message, for example about a parameter file that is missing or not YAML.
    #[error("the ROS arguments are refused: {0}")]
    Refused(String),
    /// A shell expands `~` only at the start of a word, so `config_directory:=~/fleet` arrives unexpanded.
    #[error("parameter file {0:?}: ~ is expanded by nobody here; write the whole path")]
    Tilde(String),
}

/// Creates the r2r context. When rcl rejects the arguments, r2r panics with rcl's message; this turns it into an error.
fn create_context() -> Result<r2r::Context, NodeError> {
    let mut files = env::args().zip(env::args().skip(1)).filter(|(option, _)| option == "--params-file");
    if let Some((_, file)) = files.find(|(_, file)| file.starts_with('~')) {
        return Err(ArgumentError::Tilde(file).into());
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let created = std::panic::catch_unwind(r2r::Context::create);
    std::panic::set_hook(hook);
    match created {
        Ok(context) => Ok(context?),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(ArgumentError::Refused(without_places(&words).to_owned()).into())
        }
    }
}

/// Strips the source locations that rcl appends to its messages: `, at /src/parser.c:271, at /src/arguments.c:415`.
fn without_places(words: &str) -> &str {
    let place = |place: &str| {
        place.rsplit_once(".c:").is_some_and(|(_, line)| line.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match words.rsplit_once(", at ") {
        Some((rest, last)) if place(last) => without_places(rest),
        _ => words,
    }
}

/// The arguments that are not for ROS: those before `--ros-args` and those after the `--` that ends it.
fn own_arguments(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut ros = false;
    let mut own = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--ros-args" => ros = true,
            "--" if ros => ros = false,
            _ if !ros => own.push(argument),
            _ => {}
        }
    }
    own
}

/// The command line: only `--help` and `--version`, because everything else is passed as ROS arguments.
fn command_line(facts: NodeFacts) -> clap::Command {
    let mut parameters = String::from("Parameters (--ros-args -p NAME:=VALUE, or --params-file FILE):\n");
    for (name, spec) in facts.parameters() {
        let default = spec.default.value();
        let rule = match spec.rule {
            settings::Rule::Any => String::new(),
            rule => format!(", {rule}"),
        };
        parameters.push_str(&format!(
            "  {name}\n      {} [{}, default {default}{rule}]\n",
            spec.description,
            default.type_name()
        ));
    }
    clap::Command::new(facts.name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(facts.about)
        .override_usage(format!("{} [--ros-args …]", facts.name))
        .after_help(parameters)
}

/// A node's default state directory. It includes the namespace, so two fleets on one host do not share a directory.
fn state_directory(state_home: &Path, namespace: &str, name: &str) -> PathBuf {
    state_home.join("posthorn").join(namespace.trim_start_matches('/')).join(name)
}

/// The user's state directory: `$XDG_STATE_HOME`, else `~/.local/state`, else `/var/lib`. Relative paths are ignored.
fn state_home() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
}

/// Formats an error and its sources on one line, leaving out a source that the text already contains.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_its_own_arguments_from_those_of_ros() {
        let own = |line: &str| own_arguments(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(own("node --help"), "node --help");
        assert_eq!(own("node --ros-args -p a:=1"), "node");
        assert_eq!(own("node --ros-args -r b:=c -- --version"), "node --version");
    }

    #[test]
    fn rcl_s_words_end_before_the_places_in_its_source() {
        let words = "params file 'look, at me.yaml'. Error opening YAML file";
        let placed = format!("{words}, at /project/src/parser.c:271, at ./src/rcl/arguments.c:415");
        assert_eq!(without_places(&placed), words);
        assert_eq!(without_places(words), words);
    }

    #[test]
    fn a_state_directory_is_a_node_s_own() {
        let directory = |namespace| state_directory(Path::new("/s"), namespace, "mail_bridge");
        assert_eq!(directory("/"), Path::new("/s/posthorn/mail_bridge"));
        assert_eq!(directory("/fleet"), Path::new("/s/posthorn/fleet/mail_bridge"));
        assert_eq!(directory("/a/b"), Path::new("/s/posthorn/a/b/mail_bridge"));
    }

    #[test]
    fn an_error_says_each_thing_once() {
        let inner = std::io::Error::other("disk is full");
        let outer = super::super::RosError::Service { service: "s", reason: inner.to_string() };
        assert_eq!(with_sources(&outer), "service 's' did not answer: disk is full");
    }
}
