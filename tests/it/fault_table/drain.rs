//! Either side takes its leave under load: it says GOAWAY, goes on with what stands, takes nothing new, and nothing is lost or doubled.

use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::town::{Layout, PATIENCE, Town};
use super::{Tally, Trial, alone};
use crate::crash::client::{Account, Client};
use crate::faults::site::{self, Plan};

/// The connector, five times, and the relay at last, in favour of another.
#[test]
fn fault_25_either_side_is_drained_under_load() {
    alone(async || {
        let other = site::free_address();
        let mut town = Town::start(layout(&other)).await;
        let trial = Trial::begin(25);
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            slowest = slowest.max(drain_connector(&mut town).await);
        }
        let before = town.settle().await;
        let tally = drain_relay(&mut town, &other).await;
        assert_eq!((tally.lost, tally.doubled, tally.disordered), (0, 0, 0), "by the relay's leave: {tally:?}, {before:?} before");
        trial.end(tally, slowest, "GOAWAY: the connector 5 times, then the relay, whose alternate stands before it goes").await;
        town.stop_connector().await;
    });
}

/// No word is needed: an alternate is dialled while the relay itself cannot be reached.
#[test]
fn an_alternate_is_dialled_while_the_relay_is_gone() {
    alone(async || {
        let other = site::free_address();
        let mut town = Town::start(layout(&other)).await;
        let another = town.another_relay(&other);
        assert_eq!(town.connector_status().await["tunnels"][1]["attached"], false);
        town.stop_relay().await;
        town.soon("the alternate's tunnel", async || town.connector_status().await["tunnels"][1]["attached"] == true).await;
        assert_eq!(welcome(&town, &another.client_addresses()[0].to_string()).await, 1);
        assert_eq!(town.connector_status().await["tunnels"].as_array().map(Vec::len), Some(2));
        town.customers.clear();
        town.stop_connector().await;
        another.stop().await;
    });
}

/// Drains it under load, and starts it again; how long it took from its start until all was well.
async fn drain_connector(town: &mut Town) -> Duration {
    town.burst(20, 100);
    let mut connector = town.take_connector();
    let during = async {
        town.soon("GOAWAY at the relay", async || town.relay().status().await.tunnels[0].is_leaving).await;
        // Bursts and the newcomer meet a connector that still serves and takes nobody in.
        let newcomer = Client::start("a newcomer", town.customer_account());
        town.soon("a refusal", async || town.connector_status().await.to_string().contains("\"draining\"")).await;
        drop(newcomer);
        town.settle().await
    };
    let served = tokio::select! {
        () = connector.drain() => panic!("it went while sessions stood, before its time"),
        served = during => served,
    };
    assert_eq!((served.lost, served.doubled, served.disordered), (0, 0, 0), "while it drains");
    town.burst(5, 100);
    connector.shutdown().await;
    town.burst(5, 100);
    let began = Instant::now();
    town.start_connector().await;
    town.settle().await;
    began.elapsed()
}

/// Drains the relay under load until its last customer has gone.
async fn drain_relay(town: &mut Town, other: &str) -> Tally {
    let another = town.another_relay(other);
    let alternate = town.connector_status().await["tunnels"][1].clone();
    assert_eq!((&alternate["standby"], &alternate["attached"]), (&Value::Bool(true), &Value::Bool(false)), "nobody has called it");
    town.burst(20, 100);
    let (mut relay, customers) = (town.take_relay(), town.customer_account().address);
    let tally = {
        let mut draining = std::pin::pin!(relay.drain());
        let during = async {
            town.until("GOAWAY at the connector", |tunnel| tunnel["leaving"] == true).await;
            town.soon("the alternate's tunnel", async || town.connector_status().await["tunnels"][1]["attached"] == true).await;
            town.soon("nobody accepts", async || TcpStream::connect(customers).await.is_err()).await;
            let served = welcome(town, &another.client_addresses()[0].to_string()).await;
            assert_eq!(served, 1, "the alternate serves before the other has gone");
            let tunnels = town.connector_status().await["tunnels"].as_array().map(Vec::len);
            assert_eq!(tunnels, Some(2), "what the relay alone names is not dialled");
            town.burst(20, 100);
            let tally = town.settle().await;
            assert_eq!(town.tunnel().await["attached"], true, "what stood is served where it stands");
            tally
        };
        let tally = tokio::select! {
            () = &mut draining => panic!("it went before its customers"),
            tally = during => tally,
        };
        town.customers.iter().for_each(|customer| customer.client.close());
        assert!(timeout(PATIENCE, draining).await.is_ok(), "it goes when its last customer has");
        tally
    };
    town.customers.clear();
    relay.stop().await;
    town.detached().await;
    another.stop().await;
    tally
}

/// A customer comes by another relay and is answered; how often the agent was shown his word.
async fn welcome(town: &Town, address: &str) -> usize {
    let account = Account { address: address.parse().unwrap(), ..town.customer_account() };
    let client = Client::start("a customer elsewhere", account);
    client.say(site::QUEUE, "hello from elsewhere".to_owned());
    let shown = town.agent.until("a word from elsewhere", |log| {
        let shown: Vec<_> = log.shown.iter().filter(|said| said.body == "hello from elsewhere").map(|said| said.from.clone()).collect();
        (!shown.is_empty()).then_some(shown)
    });
    let shown = shown.await;
    town.agent.say(&shown[0], "welcome elsewhere".to_owned());
    client.until("an answer", |log| log.shown.iter().any(|said| said.body == "welcome elsewhere").then_some(())).await;
    client.close();
    client.until("its end", |log| log.is_over.then_some(())).await;
    shown.len()
}

fn layout(other: &str) -> Layout {
    let plan = Plan {
        relay_lines: format!("transport = \"quic\"\nalternates = [\"{other}\"]\n[tunnel]\ndrain = \"60s\""),
        listen_lines: format!("[tunnel]\ndrain = \"60s\"\nalternates = [\"{other}\", \"elsewhere.example.com:7443\"]"),
        ..Plan::default()
    };
    Layout { plan, ..Layout::default() }.customers(4)
}
