//! What the tunnel costs and what it saves, beside rathole: the same customers, the same service, the same cuts, in one run.
//!
//! `cargo bench --bench transport -- [--systems LIST] [--seconds S] [--cuts N] [--idle N] [--flat 100,1000,5000]`
//!
//! Customers connect over TCP to the outer end and speak messages of 256 bytes; the inner end connects to a service that says each
//! of them back. **rathole** forwards bytes: a connection of its own for every customer, nothing numbered, nothing kept. **outgate** is
//! the tunnel alone (the relay's owner, both ends, real carriers) between two thin programs that put each message into an event:
//! numbered, kept until it is handled, sent again after a cut; `+store` commits each event to the connector's store before it goes
//! on. Neither side of either has XMPP, or TLS towards customers. CPU is the two processes' own, memory their resident set.
//!
//! Two measurements go over a path of 20 ms there and back: a new session's first echo, and cuts. A cut ends all that stands on the path:
//! TCP is reset; QUIC, which knows no reset from without, finds its flow dead, and silence counts as death after one second here (15
//! by default). A customer whose connection ends connects again at once and goes on with its next message; what is lost is what it
//! sent and never heard again.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a measuring program: it reads the clock, prints its table and stops at the first fault"
)]

mod connector;
mod customers;
mod measure;
mod path;
#[path = "../end_to_end/process.rs"]
mod process;
#[path = "../end_to_end/rathole.rs"]
mod rathole;
mod relay;
mod service;
mod systems;

use measure::{Cuts, Figures};

/// What the program `outgate` uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a message.
const MESSAGE: usize = 256;

/// Events that one session may have unhandled each way, as the relay allows its customers.
const UNDER_WAY: u64 = 64;

/// What the two programs of a tunnel call themselves.
const CONNECTOR: &str = "outgate://bench/connector/lan1";

fn main() {
    let args = Args(std::env::args().skip(1).filter(|arg| arg != "--bench").collect());
    match args.value("--role").as_deref() {
        Some("relay") => relay::run(&args),
        Some("connector") => connector::run(&args),
        Some("service") => service::run(),
        _ => measure(&args),
    }
}

fn measure(args: &Args) {
    let plan = measure::Plan::from_args(args);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(sizes) = args.value("--flat") {
        let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
        let mut rows = Vec::new();
        for name in &plan.systems {
            match runtime.block_on(measure::flat(name, &sizes, &plan)) {
                Ok(costs) => rows.push((name.clone(), costs)),
                Err(lacks) => eprintln!("{name}: left out: {lacks}"),
            }
        }
        return print_flat(&plan, &sizes, &rows);
    }
    let mut rows = Vec::new();
    for name in &plan.systems {
        match runtime.block_on(measure::run(name, &plan)) {
            Ok(measured) => rows.push((name.clone(), measured)),
            Err(lacks) => eprintln!("{name}: left out: {lacks}"),
        }
    }
    print_costs(&plan, &rows);
    print_cuts(&plan, &rows);
}

fn print_costs(plan: &measure::Plan, rows: &[(String, (Figures, Cuts))]) {
    println!();
    println!(
        "| system | new session, 20 ms path: first echo ms | {} at once: p50 ms | worst ms | KiB/idle session, both programs | saturated: round trips/s | CPU µs/round trip | at {}/s: CPU µs/round trip | p50 ms | p99 ms |",
        plan.at_once, plan.rate
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, (f, _)) in rows {
        println!(
            "| {name} | {:.1} | {:.0} | {:.0} | {:.1} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} |",
            f.first_ms,
            f.burst_p50_ms,
            f.burst_worst_ms,
            f.kib_per_session,
            f.saturated_rate,
            f.saturated_cpu_us,
            f.paced_cpu_us,
            f.p50_ms,
            f.p99_ms
        );
    }
}

fn print_cuts(plan: &measure::Plan, rows: &[(String, (Figures, Cuts))]) {
    println!();
    println!(
        "| system | cuts, {} sessions, {}/s | customers' connections ended | messages sent | lost | lost per cut | doubled | sent again by the tunnel | all speak again after ms (median) |",
        plan.sessions, plan.rate
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, (_, c)) in rows {
        let per_cut = c.lost as f64 / f64::from(c.cuts.max(1));
        let replayed = c.replayed.map_or_else(|| "none".to_owned(), |count| count.to_string());
        println!(
            "| {name} | {} | {} | {} | {} | {per_cut:.1} | {} | {replayed} | {:.0} |",
            c.cuts, c.broken, c.sent, c.lost, c.doubled, c.recovery_ms
        );
    }
}

fn print_flat(plan: &measure::Plan, sizes: &[usize], rows: &[(String, Vec<f64>)]) {
    println!();
    let heads: Vec<String> = sizes.iter().map(|size| format!("{size} sessions")).collect();
    println!("| CPU µs/round trip at {}/s in all, among | {} |", plan.rate, heads.join(" | "));
    println!("|---|{}", "---|".repeat(sizes.len()));
    for (name, costs) in rows {
        let cells: Vec<String> = costs.iter().map(|cost| format!("{cost:.0}")).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

/// The command line: `--NAME VALUE` pairs.
pub(crate) struct Args(Vec<String>);

impl Args {
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.0.iter().position(|arg| arg == name).and_then(|at| self.0.get(at + 1)).cloned()
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.value(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} wants a number")))
    }

    pub(crate) fn demand(&self, name: &str) -> String {
        self.value(name).unwrap_or_else(|| panic!("{name} is missing"))
    }
}
