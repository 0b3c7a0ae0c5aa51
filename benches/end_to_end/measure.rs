//! The phases of one measurement: logins, idle memory, a paced load, a saturating load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::client::{self, Credentials, Reader, Stanza, Writer};
use crate::peers::Peer;

/// Sessions that speak their first word at one time.
const WARMED_AT_ONCE: usize = 32;

/// How hard to load.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) customers: usize,
    pub(crate) agents: usize,
    pub(crate) seconds: u64,
    pub(crate) rate: u64,
    pub(crate) peers: Vec<String>,
}

impl Load {
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Self {
        let args: Vec<String> = args.filter(|arg| arg != "--bench").collect();
        let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
        let number =
            |name: &str, default: u64| value(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} wants a number")));
        Self {
            customers: number("--customers", 500) as usize,
            agents: number("--agents", 20) as usize,
            seconds: number("--seconds", 10),
            rate: number("--rate", 2000),
            peers: value("--peers").unwrap_or_else(|| "outgate,ejabberd,stack".to_owned()).split(',').map(str::to_owned).collect(),
        }
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) saturated_cpu_us: f64,
    pub(crate) saturated_rate: f64,
    pub(crate) paced_cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) kib_per_session: f64,
    pub(crate) login_cpu_ms: f64,
    pub(crate) lost: u64,
}

struct Customer {
    to: String,
    writer: Arc<Mutex<Writer>>,
    /// Echoes come back here: sequence number.
    echoes: tokio::sync::mpsc::Receiver<u64>,
    sent: u64,
}

pub(crate) async fn run(peer: &Peer, load: &Load) -> Figures {
    let mut tasks = JoinSet::new();
    let tls = client::tls(&peer.ca_pem);
    let stop = Arc::new(AtomicBool::new(false));
    for (number, credentials) in peer.agents.iter().enumerate() {
        let (reader, writer) =
            client::login(&tls, peer.agent_port, &peer.agent_domain, credentials, &format!("a{number}")).await.expect("an agent logs in");
        tasks.spawn(echo(reader, Arc::new(Mutex::new(writer))));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    eprintln!("  logins");
    let (cpu, memory) = (peer.group.cpu(), peer.group.resident_kib());
    let mut customers = Vec::new();
    for number in 0..load.customers {
        let credentials = peer.customers.get(number).cloned().unwrap_or(Credentials::Anonymous);
        let (reader, writer) =
            client::login(&tls, peer.customer_port, &peer.customer_domain, &credentials, "c").await.expect("a customer logs in");
        let writer = Arc::new(Mutex::new(writer));
        let (tell, echoes) = tokio::sync::mpsc::channel(64);
        tasks.spawn(listen(reader, Arc::clone(&writer), tell));
        customers.push(Customer { to: peer.address_of(number), writer, echoes, sent: 0 });
    }
    let login_cpu_ms = millis(peer.group.cpu() - cpu) / load.customers as f64;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The first round trip makes every session whole: routed, joined, with its software known.
    let mut lost = 0;
    let mut warmed = Vec::with_capacity(customers.len());
    while !customers.is_empty() {
        let mut some = JoinSet::new();
        for mut customer in customers.drain(..WARMED_AT_ONCE.min(customers.len())) {
            some.spawn(async move {
                let is_lost = round_trip(&mut customer, Duration::from_secs(20)).await.is_none();
                (customer, is_lost)
            });
        }
        for (customer, is_lost) in some.join_all().await {
            lost += u64::from(is_lost);
            warmed.push(customer);
        }
    }
    let customers = warmed;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let kib_per_session = (peer.group.resident_kib() as f64 - memory as f64) / load.customers as f64;

    eprintln!("  paced");
    let paced = drive(customers, load, Some(load.rate), peer, &stop).await;
    eprintln!("  saturated");
    let saturated = drive(paced.customers, load, None, peer, &stop).await;
    tasks.shutdown().await;
    let mut latencies = paced.latencies;
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len().saturating_sub(1) * share / 100).map_or(0.0, |us| *us as f64 / 1000.0);
    Figures {
        saturated_cpu_us: saturated.cpu_us,
        saturated_rate: saturated.rate,
        paced_cpu_us: paced.cpu_us,
        p50_ms: at(50),
        p99_ms: at(99),
        kib_per_session,
        login_cpu_ms,
        lost: lost + paced.lost + saturated.lost,
    }
}

struct Phase {
    customers: Vec<Customer>,
    latencies: Vec<u64>,
    cpu_us: f64,
    rate: f64,
    lost: u64,
}

/// Every customer sends, waits for its echo, and sends again: at once, or at its share of `rate`.
async fn drive(customers: Vec<Customer>, load: &Load, rate: Option<u64>, peer: &Peer, stop: &Arc<AtomicBool>) -> Phase {
    stop.store(false, Ordering::Relaxed);
    let trips = Arc::new(AtomicU64::new(0));
    let count = customers.len() as u64;
    let mut running = JoinSet::new();
    for (number, mut customer) in customers.into_iter().enumerate() {
        let (stop, trips) = (Arc::clone(stop), Arc::clone(&trips));
        running.spawn(async move {
            let (mut latencies, mut lost) = (Vec::new(), 0);
            let pause = rate.map(|rate| Duration::from_micros(count * 1_000_000 / rate));
            let mut next = Instant::now() + pause.map_or(Duration::ZERO, |pause| pause * number as u32 / count as u32);
            while !stop.load(Ordering::Relaxed) {
                if let Some(pause) = pause {
                    tokio::time::sleep_until(next.into()).await;
                    next += pause;
                }
                match round_trip(&mut customer, Duration::from_secs(20)).await {
                    Some(took) => {
                        latencies.push(took.as_micros() as u64);
                        trips.fetch_add(1, Ordering::Relaxed);
                    }
                    None => lost += 1,
                }
            }
            (customer, latencies, lost)
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu, done, began) = (peer.group.cpu(), trips.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(load.seconds)).await;
    let spent = peer.group.cpu() - cpu;
    let made = (trips.load(Ordering::Relaxed) - done).max(1);
    let rate = made as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut phase = Phase { customers: Vec::new(), latencies: Vec::new(), cpu_us: spent.as_micros() as f64 / made as f64, rate, lost: 0 };
    while let Some(ended) = running.join_next().await {
        let (customer, latencies, lost) = ended.unwrap();
        phase.customers.push(customer);
        phase.latencies.extend(latencies);
        phase.lost += lost;
    }
    phase
}

async fn round_trip(customer: &mut Customer, patience: Duration) -> Option<Duration> {
    customer.sent += 1;
    let sequence = customer.sent;
    let began = Instant::now();
    let body = format!("{:<60}", format!("n={sequence} the quick brown fox"));
    let stanza = format!("<message to='{}' type='chat' id='m{sequence}'><body>{body}</body></message>", customer.to);
    customer.writer.lock().await.write(&stanza).await.ok()?;
    loop {
        let echo = tokio::time::timeout(patience, customer.echoes.recv()).await.ok()??;
        if echo == sequence {
            return Some(began.elapsed());
        }
    }
}

/// The customer's ear: hands on echoes, answers questions.
async fn listen(mut reader: Reader, writer: Arc<Mutex<Writer>>, tell: tokio::sync::mpsc::Sender<u64>) {
    while let Ok(stanza) = reader.next().await {
        match stanza {
            Stanza::Message { body, .. } => {
                if let Some(sequence) = body.strip_prefix("n=").and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse().ok())
                    && tell.send(sequence).await.is_err()
                {
                    return;
                }
            }
            Stanza::Question { from, to, id } => answer(&writer, from, to, &id).await,
            Stanza::Other => {}
        }
    }
}

/// An agent that says everything back.
async fn echo(mut reader: Reader, writer: Arc<Mutex<Writer>>) {
    while let Ok(stanza) = reader.next().await {
        match stanza {
            Stanza::Message { from, body } if body.starts_with("n=") => {
                let reply = format!("<message to='{from}' type='chat'><body>{body}</body></message>");
                if writer.lock().await.write(&reply).await.is_err() {
                    return;
                }
            }
            Stanza::Question { from, to, id } => answer(&writer, from, to, &id).await,
            Stanza::Message { .. } | Stanza::Other => {}
        }
    }
}

async fn answer(writer: &Mutex<Writer>, from: Option<String>, _to: Option<String>, id: &str) {
    let to = from.map(|from| format!(" to='{from}'")).unwrap_or_default();
    let _result = writer.lock().await.write(&format!("<iq type='result' id='{id}'{to}/>")).await;
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
