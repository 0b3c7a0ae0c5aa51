//! What is measured of one system.

use std::time::{Duration, Instant};

use crate::Args;
use crate::customers::{Customers, Pace};
use crate::systems::{System, Way};

/// Messages under way for each customer where the system is saturated.
const WINDOW: u64 = 8;

/// How much to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) systems: Vec<String>,
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    pub(crate) sessions: usize,
    pub(crate) idle: usize,
    pub(crate) one_by_one: usize,
    pub(crate) at_once: usize,
    pub(crate) cuts: u32,
}

impl Plan {
    pub(crate) fn from_args(args: &Args) -> Self {
        let systems = args.value("--systems");
        let systems = systems.unwrap_or_else(|| "outgate-tls,outgate-quic,outgate-quic+store,rathole-tls,rathole-noise".to_owned());
        let size = |name, default| usize::try_from(args.number(name, default)).unwrap();
        Self {
            systems: systems.split(',').map(str::to_owned).collect(),
            seconds: args.number("--seconds", 3),
            rate: args.number("--rate", 2000),
            sessions: size("--sessions", 100),
            idle: size("--idle", 1000),
            one_by_one: 50,
            at_once: 50,
            cuts: u32::try_from(args.number("--cuts", 8)).unwrap(),
        }
    }

    /// How often each of `sessions` speaks, so that all together keep the rate.
    fn pause(&self, sessions: usize) -> Pace {
        Pace::Every(Duration::from_secs_f64(sessions as f64 / self.rate as f64))
    }
}

/// What a system costs.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) first_ms: f64,
    pub(crate) burst_p50_ms: f64,
    pub(crate) burst_worst_ms: f64,
    pub(crate) kib_per_session: f64,
    pub(crate) saturated_rate: f64,
    pub(crate) saturated_cpu_us: f64,
    pub(crate) paced_cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What became of messages while the path was cut.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    pub(crate) cuts: u32,
    pub(crate) broken: u64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) replayed: Option<u64>,
    pub(crate) recovery_ms: f64,
}

pub(crate) async fn run(name: &str, plan: &Plan) -> Result<(Figures, Cuts), String> {
    let mut figures = Figures::default();
    let system = System::start(name, Way::Direct).await?;
    eprintln!("{name}: load");
    load(&system, plan, &mut figures).await;
    drop(system);
    eprintln!("{name}: memory");
    let system = System::start(name, Way::Direct).await?;
    figures.kib_per_session = memory(&system, plan).await;
    drop(system);
    let mut system = System::start(name, Way::Path).await?;
    eprintln!("{name}: new sessions");
    newcomers(&system, plan, &mut figures).await;
    eprintln!("{name}: cuts");
    let cuts = cut(&mut system, plan).await;
    Ok((figures, cuts))
}

async fn load(system: &System, plan: &Plan, figures: &mut Figures) {
    let mut customers = Customers::of(system.front);
    customers.bring(plan.sessions, 10).await;
    let (cpu, _) = cost(system, &customers, plan.pause(plan.sessions), plan.seconds).await;
    figures.paced_cpu_us = cpu;
    let latencies = customers.latencies();
    (figures.p50_ms, figures.p99_ms) = (share(&latencies, 50), share(&latencies, 99));
    (figures.saturated_cpu_us, figures.saturated_rate) = cost(system, &customers, Pace::Window(WINDOW), plan.seconds).await;
    let tally = customers.settle().await;
    assert_eq!((tally.lost, tally.doubled), (0, 0), "lost or doubled without a cut");
}

/// Microseconds of CPU for a round trip, and round trips a second.
async fn cost(system: &System, customers: &Customers, pace: Pace, seconds: u64) -> (f64, f64) {
    customers.speak(pace);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu, echoes, began) = (system.group.cpu(), customers.echoes(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let spent = system.group.cpu() - cpu;
    let made = (customers.echoes() - echoes).max(1) as f64;
    (spent.as_secs_f64() * 1e6 / made, made / began.elapsed().as_secs_f64())
}

/// KiB for a session that has spoken once and is silent.
async fn memory(system: &System, plan: &Plan) -> f64 {
    let mut customers = Customers::of(system.front);
    // The first sessions bring what is there once for all.
    customers.bring(50, 10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = system.group.resident_kib();
    customers.bring(plan.idle, 20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    (system.group.resident_kib() as f64 - before as f64) / plan.idle as f64
}

async fn newcomers(system: &System, plan: &Plan, figures: &mut Figures) {
    let mut customers = Customers::of(system.front);
    // The way stands once the first customer is served.
    customers.bring(1, 1).await;
    figures.first_ms = share(&customers.bring(plan.one_by_one, 1).await, 50);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let burst = customers.bring(plan.at_once, plan.at_once).await;
    (figures.burst_p50_ms, figures.burst_worst_ms) = (share(&burst, 50), share(&burst, 100));
}

/// Cuts the path while all speak; the next cut follows 300 ms after every customer has been heard again.
async fn cut(system: &mut System, plan: &Plan) -> Cuts {
    let mut customers = Customers::of(system.front);
    customers.bring(plan.sessions, 10).await;
    let (broken, replayed) = (customers.broken(), system.replayed());
    customers.speak(plan.pause(plan.sessions));
    let mut recoveries = Vec::new();
    for _ in 0..plan.cuts {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        system.path.as_ref().unwrap().cut();
        customers.speak_again().await;
        recoveries.push(began.elapsed());
    }
    let tally = customers.settle().await;
    recoveries.sort_unstable();
    Cuts {
        cuts: plan.cuts,
        broken: customers.broken() - broken,
        sent: tally.sent,
        lost: tally.lost,
        doubled: tally.doubled,
        replayed: system.replayed().zip(replayed).map(|(after, before)| after - before),
        recovery_ms: share(&recoveries, 50),
    }
}

/// CPU for a round trip among ever more sessions, at one rate for all together.
pub(crate) async fn flat(name: &str, sizes: &[usize], plan: &Plan) -> Result<Vec<f64>, String> {
    let system = System::start(name, Way::Direct).await?;
    let mut customers = Customers::of(system.front);
    let mut costs = Vec::new();
    let mut there = 0;
    for size in sizes {
        eprintln!("{name}: {size} sessions");
        customers.bring(size - there, 50).await;
        there = *size;
        tokio::time::sleep(Duration::from_secs(1)).await;
        costs.push(cost(&system, &customers, plan.pause(there), plan.seconds).await.0);
        customers.settle().await;
    }
    Ok(costs)
}

fn share(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}
