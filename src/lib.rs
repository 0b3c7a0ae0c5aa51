//! Outgate: a firewall-traversing edge relay for instant messaging.
//!
//! Five floors; a floor knows only the floors below it (see docs/architecture.md).

// Floor 0: values and decisions.
pub mod admission;
pub mod fingerprint;
pub mod im;
pub mod link;
pub mod names;
pub mod routing;
pub mod session;

// Floor 1: sans-IO protocols and configuration.
pub mod config;
pub mod proto;

// Floor 2: adapters.
pub mod net;
pub mod store;
pub mod telemetry;

// Floor 3: roles.
pub mod admin;
pub mod authority;
pub mod connector;
pub mod relay;

// Floor 4: the command line.
pub mod cli;
