//! The customers: each speaks through a connection of its own, hears the service's echoes, and keeps the account.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::MESSAGE;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// How a customer speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Not at all, after the first message.
    Silent,
    /// A message every so often.
    Every(Duration),
    /// As fast as echoes come, so many messages under way.
    Window(u64),
}

/// One customer's account.
#[derive(Debug, Default)]
struct Account {
    sent: u64,
    /// How often each message came back.
    seen: Vec<u8>,
    /// When the youngest message that came back was sent, in nanoseconds since the program's epoch.
    youngest: u64,
    latencies: Vec<Duration>,
}

/// What all customers' accounts come to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

/// All customers of one measurement.
pub(crate) struct Customers {
    pace: watch::Sender<Pace>,
    shared: Arc<Shared>,
    front: SocketAddr,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    accounts: Mutex<Vec<Arc<Mutex<Account>>>>,
    echoes: AtomicU64,
    /// Connections that ended unasked.
    broken: AtomicU64,
}

impl Customers {
    pub(crate) fn of(front: u16) -> Self {
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, front));
        Self { pace: watch::Sender::new(Pace::Silent), shared: Arc::default(), front, tasks: JoinSet::new() }
    }

    /// Brings more, `at_once` at one time; each has heard its first echo then. Gives how long that took from each one's
    /// first message, which it sends as soon as it is connected.
    pub(crate) async fn bring(&mut self, count: usize, at_once: usize) -> Vec<Duration> {
        let first = lock(&self.shared.accounts).len();
        let mut took = Vec::with_capacity(count);
        for number in first..first + count {
            let account = Arc::new(Mutex::new(Account::default()));
            lock(&self.shared.accounts).push(account.clone());
            let customer = Customer {
                number: u32::try_from(number).unwrap(),
                // Spread over the interval, whatever it is.
                phase: (number as f64 * 0.618_033_988_749).fract(),
                account,
                shared: self.shared.clone(),
                front: self.front,
            };
            self.tasks.spawn(customer.run(self.pace.subscribe()));
            if (number - first + 1).is_multiple_of(at_once) || number + 1 == first + count {
                self.until("a first echo", |account| account.seen.first().is_some_and(|times| *times > 0)).await;
            }
        }
        for account in lock(&self.shared.accounts).iter().skip(first) {
            took.append(&mut lock(account).latencies);
        }
        took.sort_unstable();
        took
    }

    pub(crate) fn speak(&self, pace: Pace) {
        for account in lock(&self.shared.accounts).iter() {
            lock(account).latencies.clear();
        }
        self.pace.send_replace(pace);
    }

    /// Echoes heard so far.
    pub(crate) fn echoes(&self) -> u64 {
        self.shared.echoes.load(Ordering::Relaxed)
    }

    pub(crate) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// Takes the latencies since [`Self::speak`], sorted.
    pub(crate) fn latencies(&self) -> Vec<Duration> {
        let mut all: Vec<Duration> =
            lock(&self.shared.accounts).iter().flat_map(|account| std::mem::take(&mut lock(account).latencies)).collect();
        all.sort_unstable();
        all
    }

    /// Waits until each customer has heard the echo of something that it said from now on.
    pub(crate) async fn speak_again(&self) {
        let now = nanos();
        self.until("an echo", |account| account.youngest >= now).await;
    }

    /// Silences all and waits until every echo has come, or none has for 3 s.
    pub(crate) async fn settle(&self) -> Tally {
        self.speak(Pace::Silent);
        let (mut before, mut since) = (self.echoes(), Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let tally = self.tally();
            if self.echoes() != before {
                (before, since) = (self.echoes(), Instant::now());
            } else if tally.lost == 0 || since.elapsed() > Duration::from_secs(3) {
                return tally;
            }
        }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for account in lock(&self.shared.accounts).iter() {
            let account = lock(account);
            let seen = account.seen.iter().filter(|times| **times > 0).count() as u64;
            tally.sent += account.sent;
            tally.lost += account.sent - seen;
            tally.doubled += account.seen.iter().map(|times| u64::from(times.saturating_sub(1))).sum::<u64>();
        }
        tally
    }

    async fn until(&self, what: &str, done: impl Fn(&Account) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let missing = lock(&self.shared.accounts).iter().filter(|account| !done(&lock(account))).count();
            if missing == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{missing} customers wait for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Customer {
    number: u32,
    /// Where in the interval it speaks, from 0 to 1.
    phase: f64,
    account: Arc<Mutex<Account>>,
    shared: Arc<Shared>,
    front: SocketAddr,
}

impl Customer {
    async fn run(self, mut pace: watch::Receiver<Pace>) {
        let mut is_first = true;
        loop {
            if let Ok(stream) = TcpStream::connect(self.front).await {
                let _delay = stream.set_nodelay(true);
                self.converse(stream.into_split(), is_first, &mut pace).await;
                self.shared.broken.fetch_add(1, Ordering::Relaxed);
                is_first = false;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn converse(&self, (mut read, mut write): (OwnedReadHalf, OwnedWriteHalf), is_first: bool, pace: &mut watch::Receiver<Pace>) {
        let (mut message, mut filled) = ([0; MESSAGE], 0);
        // On this connection: what went out less what came back.
        let mut under_way = 0;
        if is_first && self.say(&mut write).await.is_err() {
            return;
        }
        let mut now = *pace.borrow_and_update();
        let mut due = self.due(now);
        loop {
            if let Pace::Window(most) = now {
                while under_way < most {
                    under_way += 1;
                    if self.say(&mut write).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                length = read.read(&mut message[filled..]) => {
                    let Ok(length @ 1..) = length else { return };
                    filled += length;
                    if filled == MESSAGE {
                        (filled, under_way) = (0, under_way.saturating_sub(1));
                        self.heard(&message);
                    }
                }
                () = until(due) => {
                    if self.say(&mut write).await.is_err() {
                        return;
                    }
                    due = due.zip(interval(now)).map(|(due, pause)| due + pause);
                }
                changed = pace.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    (now, under_way) = (*pace.borrow_and_update(), 0);
                    due = self.due(now);
                }
            }
        }
    }

    fn due(&self, pace: Pace) -> Option<Instant> {
        interval(pace).map(|pause| Instant::now() + pause.mul_f64(self.phase))
    }

    async fn say(&self, write: &mut OwnedWriteHalf) -> std::io::Result<()> {
        let sent = {
            let mut account = lock(&self.account);
            account.sent += 1;
            account.seen.push(0);
            account.sent
        };
        let mut message = [0; MESSAGE];
        message[..4].copy_from_slice(&self.number.to_be_bytes());
        message[4..12].copy_from_slice(&sent.to_be_bytes());
        message[12..20].copy_from_slice(&nanos().to_be_bytes());
        write.write_all(&message).await
    }

    fn heard(&self, message: &[u8; MESSAGE]) {
        let number = |range: std::ops::Range<usize>| u64::from_be_bytes(message[range].try_into().unwrap());
        assert_eq!(message[..4], self.number.to_be_bytes(), "a message came to another customer");
        let (sent, sent_at) = (number(4..12), number(12..20));
        self.shared.echoes.fetch_add(1, Ordering::Relaxed);
        let mut account = lock(&self.account);
        let times = &mut account.seen[usize::try_from(sent - 1).unwrap()];
        *times = times.saturating_add(1);
        account.youngest = account.youngest.max(sent_at);
        account.latencies.push(Duration::from_nanos(nanos() - sent_at));
    }
}

fn interval(pace: Pace) -> Option<Duration> {
    if let Pace::Every(pause) = pace { Some(pause) } else { None }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Nanoseconds since the program began to measure.
fn nanos() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    u64::try_from(EPOCH.get_or_init(Instant::now).elapsed().as_nanos()).unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
