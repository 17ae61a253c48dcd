// SPDX-License-Identifier: Apache-2.0
//! The whole graph: real processes and real DDS, with a separate ROS domain for each test. They mostly wait, so
//! that several graphs of five processes run beside each other.

mod bad_input;
mod chain;
mod command;
mod conversation;
mod dns;
mod evidence;
mod fleets;
mod life;
mod mailbox;
mod many;
mod observing;
mod orders;
mod outbound;
mod parameters;
mod publisher;
mod python;
mod registry;
mod security;
mod shared;
mod tasks;
