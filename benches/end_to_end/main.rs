//! What one round trip, one login and one idle session cost, end to end, beside the peers.
//!
//! `cargo bench --bench end_to_end -- [--customers N] [--agents N] [--seconds S] [--rate R] [--peers outgate,ejabberd,stack]`
//!
//! One generator drives every system in the same run: customers and echoing agents over direct TLS, 60-byte bodies. A round
//! trip is customer → agent → customer. CPU is the systems' own (user and system time of their processes), memory their resident
//! set. A peer whose programs are not installed is left out and named. `--peers outgate,outgate=PATH` compares two builds of it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring program: it reads the clock, prints its table and stops at the first fault"
)]

mod client;
mod measure;
mod peers;
mod process;
mod rathole;

use measure::{Figures, Load};

fn main() {
    let load = Load::from_args(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut rows = Vec::new();
    for name in &load.peers {
        match peers::start(name, &load) {
            Ok(peer) => {
                eprintln!("{name}: measuring");
                rows.push((name.clone(), runtime.block_on(measure::run(&peer, &load))));
            }
            Err(lacks) => eprintln!("{name}: left out: {lacks}"),
        }
    }
    print_table(&load, &rows);
}

fn print_table(load: &Load, rows: &[(String, Figures)]) {
    println!();
    println!("{} customers, {} agents, direct TLS at both ends, 60-byte bodies, {} s a phase", load.customers, load.agents, load.seconds);
    println!();
    println!(
        "| system | CPU µs/round trip, saturated | round trips/s | CPU µs/round trip at {}/s | p50 ms | p99 ms | KiB/idle session | CPU ms/login | lost |",
        load.rate
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, f) in rows {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {:.2} | {} |",
            f.saturated_cpu_us, f.saturated_rate, f.paced_cpu_us, f.p50_ms, f.p99_ms, f.kib_per_session, f.login_cpu_ms, f.lost
        );
    }
}
