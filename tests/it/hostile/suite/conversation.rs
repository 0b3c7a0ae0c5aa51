//! What must not notice an attack: a customer and an agent who exchange numbered messages, and newcomers who are greeted.

use std::sync::Arc;
use std::time::Duration;

use outgate::proto::xmpp::client::Credentials;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::PATIENCE;
use super::super::site::Site;
use super::super::talker::{Heard, Talker};
use crate::fault_table::Tally;
use crate::setup::{AGENTS, CUSTOMERS, PASSWORD};

pub(super) const QUEUE: &str = "support@chat.example.com";

/// Between two messages of the customer.
const PACE: Duration = Duration::from_millis(20);

/// Between two newcomers.
const VISIT_EVERY: Duration = Duration::from_millis(150);

/// The end of the conversation, told to the agent.
const LAST: &str = "that is all";

/// All of it, under way.
#[derive(Debug)]
pub(super) struct Conversation {
    stage: watch::Sender<Stage>,
    parts: JoinSet<Part>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Newcomers come, messages go.
    Lively,
    /// Nobody comes any more.
    NobodyComes,
    /// What was said is waited for.
    LastWords,
}

/// What became of it.
#[derive(Debug)]
pub(in crate::hostile) struct Talk {
    /// As the agent and as the customer was shown it.
    pub(super) tallies: [Tally; 2],
    /// Customers who came meanwhile, and those of them who were greeted and left on their own.
    pub(super) newcomers: usize,
    pub(super) served: usize,
    /// Newcomers' words as the agent heard them, and from whom.
    pub(super) others: Vec<Heard>,
    trips: Vec<Duration>,
    _both: [Talker; 2],
}

#[derive(Debug)]
enum Part {
    Customer { customer: Talker, said: usize, shown: Vec<usize>, trips: Vec<Duration> },
    Agent { agent: Talker, shown: Vec<usize>, others: Vec<Heard> },
    Newcomers { came: usize, served: usize },
}

impl Conversation {
    pub(super) async fn begin(site: &Arc<Site>) -> Self {
        let alice = Credentials::Scram { user: "alice".to_owned(), password: PASSWORD.to_owned() };
        let mut agent = Talker::arrive(site.agents, AGENTS, &site.ca_pem(), alice).await;
        let mut customer = come(site).await;
        customer.say(QUEUE, "hello").await;
        let greeting = async {
            loop {
                let heard = agent.hear().await;
                if heard.body == "hello" {
                    return heard.from;
                }
            }
        };
        let proxy = timeout(PATIENCE, greeting).await.unwrap();
        let (stage, for_customer) = watch::channel(Stage::Lively);
        let mut parts = JoinSet::new();
        let (for_newcomers, theirs) = (stage.subscribe(), Arc::clone(site));
        parts.spawn(async move { talk(customer, for_customer).await });
        parts.spawn(async move { serve(agent, &proxy).await });
        parts.spawn(async move { visits(&theirs, for_newcomers).await });
        Self { stage, parts }
    }

    /// Ends it, once all that was said has been shown or patience is at its end. Both stay where they are until the outcome is dropped.
    pub(super) async fn end(mut self) -> Talk {
        self.stage.send_replace(Stage::NobodyComes);
        let (mut at_customer, mut at_agent, mut visits) = (None, None, (0, 0));
        let all = async {
            while let Some(part) = self.parts.join_next().await {
                match part.unwrap() {
                    Part::Customer { customer, said, shown, trips } => at_customer = Some((customer, said, shown, trips)),
                    Part::Agent { agent, shown, others } => at_agent = Some((agent, shown, others)),
                    Part::Newcomers { came, served } => {
                        visits = (came, served);
                        self.stage.send_replace(Stage::LastWords);
                    }
                }
            }
        };
        timeout(4 * PATIENCE, all).await.expect("the conversation ends");
        let ((customer, said, shown, mut trips), (agent, asked, others)) = (at_customer.unwrap(), at_agent.unwrap());
        trips.sort_unstable();
        let tallies = [Tally::of(&asked, said), Tally::of(&shown, said)];
        Talk { tallies, newcomers: visits.0, served: visits.1, others, trips, _both: [customer, agent] }
    }
}

impl Talk {
    /// The round trip, customer to agent and back, below which such a share of all were.
    pub(super) fn trip(&self, percent: usize) -> Duration {
        self.trips.get(self.trips.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }
}

/// A customer with a good link.
async fn come(site: &Site) -> Talker {
    let link = Credentials::Plain { user: "me".to_owned(), password: site.good_link() };
    Talker::arrive(site.door, CUSTOMERS, &site.ca_pem(), link).await
}

/// Numbered messages at a steady pace, each answered with its number.
async fn talk(mut customer: Talker, stage: watch::Receiver<Stage>) -> Part {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut said, mut shown, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_word = Instant::now();
    loop {
        let is_done = *stage.borrow() == Stage::LastWords;
        if is_done && (shown.len() >= said.len() || last_word.elapsed() > PATIENCE) {
            customer.say(QUEUE, LAST).await;
            return Part::Customer { customer, said: said.len(), shown, trips };
        }
        tokio::select! {
            heard = customer.hear() => if let Some(number) = numbered("agent ", &heard.body) {
                trips.extend(said.get(number.wrapping_sub(1)).map(Instant::elapsed));
                shown.push(number);
                last_word = Instant::now();
            },
            _ = pace.tick() => if !is_done {
                customer.say(QUEUE, &format!("customer {}", said.len() + 1)).await;
                said.push(Instant::now());
            },
        }
    }
}

/// The agent answers whoever talks to him, until the customer at `proxy` has said his last word.
async fn serve(mut agent: Talker, proxy: &str) -> Part {
    let (mut shown, mut others) = (Vec::new(), Vec::new());
    loop {
        let heard = agent.hear().await;
        if heard.from != proxy {
            if let Some(number) = heard.body.strip_prefix("newcomer ") {
                agent.say(&heard.from, &format!("welcome {number}")).await;
                others.push(heard);
            }
        } else if heard.body == LAST {
            return Part::Agent { agent, shown, others };
        } else if let Some(number) = numbered("customer ", &heard.body) {
            shown.push(number);
            agent.say(proxy, &format!("agent {number}")).await;
        }
    }
}

/// Customers who come at a steady pace, say a word, are greeted and leave.
async fn visits(site: &Arc<Site>, stage: watch::Receiver<Stage>) -> Part {
    let mut pace = interval(VISIT_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut came, mut visits) = (0, JoinSet::new());
    while *stage.borrow() == Stage::Lively {
        came += 1;
        let (site, number) = (Arc::clone(site), came);
        visits.spawn(async move {
            let visit = async {
                let mut customer = come(&site).await;
                customer.say(QUEUE, &format!("newcomer {number}")).await;
                while customer.hear().await.body != format!("welcome {number}") {}
            };
            timeout(PATIENCE, visit).await.is_ok()
        });
        pace.tick().await;
    }
    let served = visits.join_all().await.into_iter().filter(|served| *served).count();
    Part::Newcomers { came, served }
}

fn numbered(prefix: &str, body: &str) -> Option<usize> {
    body.strip_prefix(prefix)?.parse().ok()
}
