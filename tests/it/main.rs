//! Everything that needs sockets, processes or other people's programs, in one binary.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and shows what it saw")]

mod carriers;
mod certificates;
mod cli;
mod crash;
mod door;
mod fault_table;
mod faults;
mod hostile;
mod interop;
mod lab;
mod net;
mod reach;
mod relay;
mod resume;
mod setup;
mod signals;
mod sim;
mod trust;
