//! Faults of the wire: cut at any byte, frames and acknowledgements lost, silence one way or both.

use std::time::Duration;

use serde_json::Value;

use super::town::{Layout, Town};
use super::{Tally, Trial, alone, asked};
use crate::faults::{Kind, Way};

const BOTH: [&str; 2] = ["quic", "tls"];

/// Long enough for what was said to be on the wire.
const UNDER_WAY: Duration = Duration::from_millis(60);

/// How far from one cut to the next within the TLS handshake, which knows nothing of the tunnel, where `OUTGATE_CUT_STRIDE` asks for
/// nothing else: prime, so that no record's length hides behind it. Within the frames it is one byte.
const STRIDE: u64 = 37;

fn epoch(tunnel: &Value) -> u64 {
    tunnel["epoch"].as_u64().unwrap_or(0)
}

fn kind(transport: &str) -> Kind {
    if transport == "quic" { Kind::Udp } else { Kind::Tcp }
}

/// A TCP connection of the tunnel is reset at its first byte and so on, until HELLO, ATTACH and the first event
/// have passed: every byte of these, and some of the TLS handshake before.
#[test]
fn fault_01_reset_at_every_byte_of_a_three_frame_exchange() {
    alone(async || {
        let mut town = Town::start(Layout::over("tls").customers(1)).await;
        let trial = Trial::begin(1);
        let stride = usize::try_from(asked("OUTGATE_CUT_STRIDE", STRIDE)).unwrap();
        let (mut cuts, mut slowest) = (0, Duration::ZERO);
        for way in [Way::ToRelay, Way::ToConnector] {
            let before = town.wire.passed(Kind::Tcp, way);
            let last = town.until("an epoch", |tunnel| epoch(tunnel) > 0).await;
            town.reattach().await;
            town.until("the next", |tunnel| tunnel["attached"] == true && epoch(tunnel) > epoch(&last)).await;
            let attached = town.wire.passed(Kind::Tcp, way) - before;
            town.burst(1, 0);
            town.settle().await;
            let whole = town.wire.passed(Kind::Tcp, way) - before;
            // The handshake's length differs by a few bytes from one to the next.
            let frames = attached.saturating_sub(260);
            for offset in (0..frames).step_by(stride).chain(frames..whole + 8) {
                let began = tokio::time::Instant::now();
                town.burst(1, 0);
                let connections = town.wire.connections();
                town.wire.rule(Kind::Tcp, way, |rule| rule.cut_at = Some(offset));
                town.reattach().await;
                town.soon("a connection", async || town.wire.connections() > connections).await;
                town.soon("its cut", async || town.wire.connections() > connections + 1 || town.tunnel().await["attached"] == true).await;
                town.wire.rule(Kind::Tcp, way, |rule| rule.cut_at = None);
                if town.tunnel().await["attached"] == false {
                    town.reattach().await;
                }
                town.settle().await;
                cuts += 1;
                slowest = slowest.max(began.elapsed());
            }
        }
        let tally = town.settle().await;
        trial.end(tally, slowest, &format!("tls, {cuts} cuts; slowest recovery")).await;
        town.stop().await;
    });
}

/// What is on the wire is lost with it, both ways.
#[test]
fn fault_02_data_lost_before_its_acknowledgement() {
    alone(async || {
        let mut total = Totals::begin(2).await;
        for transport in BOTH {
            let mut town = Town::start(Layout::over(transport)).await;
            let trial = Trial::begin(2);
            for _ in 0..5 {
                town.wire.every(|rule| rule.hole = true);
                town.burst(20, 0);
                tokio::time::sleep(UNDER_WAY).await;
                total.fault();
                lose(&town, transport).await;
                town.wire.every(|rule| rule.hole = false);
                town.settle().await;
                total.over();
            }
            let replayed = town.tunnel().await["replayed"].as_u64().unwrap();
            assert!(replayed > 0, "what was lost is sent again");
            total.end(trial, town, "quic and tls, 5 times each").await;
        }
    });
}

/// All has arrived, was committed and shown, but the word of it has not come back.
#[test]
fn fault_03_acknowledgements_lost() {
    alone(async || {
        let mut total = Totals::begin(3).await;
        for transport in BOTH {
            let mut town = Town::start(Layout::over(transport)).await;
            let trial = Trial::begin(3);
            for _ in 0..3 {
                town.wire.rule(kind(transport), Way::ToRelay, |rule| rule.hole = true);
                town.ask(10, 0);
                town.all_asked().await;
                total.fault();
                let before = lose(&town, transport).await;
                town.wire.every(|rule| rule.hole = false);
                town.attached_after(before).await;
                town.settle().await;
                total.over();
                town.wire.rule(kind(transport), Way::ToConnector, |rule| rule.hole = true);
                town.answer(10, 0);
                town.all_answered().await;
                total.fault();
                let before = lose(&town, transport).await;
                town.wire.every(|rule| rule.hole = false);
                town.attached_after(before).await;
                town.settle().await;
                total.over();
            }
            total.end(trial, town, "quic and tls, both ways").await;
        }
    });
}

/// The relay has granted an epoch of which the connector never hears, twice.
#[test]
fn fault_04_the_answer_to_attach_lost_twice() {
    alone(async || {
        let mut town = Town::start(Layout::over("tls")).await;
        let trial = Trial::begin(4);
        let first = epoch(&town.tunnel().await);
        town.wire.rule(Kind::Tcp, Way::ToConnector, |rule| rule.delay = Duration::from_millis(100));
        for lost in 1..=2 {
            town.burst(5, 0);
            town.reattach().await;
            town.soon("the relay's grant", async || town.relay_epoch().await == first + lost).await;
            town.wire.cut();
        }
        let began = trial.elapsed();
        town.wire.every(|rule| rule.delay = Duration::ZERO);
        town.reattach().await;
        let tally = town.settle().await;
        let took = trial.elapsed() - began;
        let tunnel = town.tunnel().await;
        assert!(epoch(&tunnel) >= first + 3 && tunnel["attachments"].as_u64().unwrap() < epoch(&tunnel), "{tunnel}");
        trial.end(tally, took, "tls").await;
        town.stop().await;
    });
}

#[test]
fn fault_05_cut_during_replay_ten_times() {
    alone(async || {
        let mut total = Totals::begin(5).await;
        for transport in BOTH {
            let mut town = Town::start(Layout::over(transport).customers(4)).await;
            let trial = Trial::begin(5);
            town.wire.every(|rule| rule.hole = true);
            town.burst(60, 500);
            tokio::time::sleep(UNDER_WAY).await;
            lose(&town, transport).await;
            town.wire.every(|rule| (rule.hole, rule.bytes_per_second) = (false, Some(250_000)));
            for cut in 1..=10 {
                let before = town.relay_epoch().await;
                town.soon("the next replay", async || town.relay_is_attached().await && town.relay_epoch().await >= before).await;
                tokio::time::sleep(Duration::from_millis(cut * 7)).await;
                lose(&town, transport).await;
                town.soon("its end", async || town.relay_epoch().await > before).await;
            }
            total.fault();
            town.wire.every(|rule| rule.bytes_per_second = None);
            let tally = town.settle().await;
            total.over();
            assert_eq!(tally.lost, 0);
            assert!(town.tunnel().await["replayed"].as_u64().unwrap() > 60);
            total.end(trial, town, "quic and tls, a thin wire").await;
        }
    });
}

#[test]
fn fault_06_silence_towards_the_relay() {
    alone(async || one_way(6, Way::ToRelay).await);
}

#[test]
fn fault_07_silence_towards_the_connector() {
    alone(async || one_way(7, Way::ToConnector).await);
}

/// Nothing passes one way, and nobody is told. The wire is whole again once the connector has given the carrier up.
async fn one_way(number: u8, way: Way) {
    let mut total = Totals::begin(number).await;
    for transport in BOTH {
        let mut town = Town::start(Layout::over(transport).with_shipped_times()).await;
        let trial = Trial::begin(number);
        total.fault();
        town.wire.rule(kind(transport), way, |rule| rule.hole = true);
        town.burst(30, 0);
        town.detached().await;
        town.burst(5, 0);
        town.wire.every(|rule| rule.hole = false);
        town.reattach().await;
        town.settle().await;
        total.over();
        total.end(trial, town, "quic and tls; a carrier is dead after 15 s").await;
    }
}

/// A black hole, and then a thousand carriers one after the other.
#[test]
fn fault_08_a_black_hole_and_a_thousand_attachments_leave_nothing_behind() {
    alone(async || {
        let mut total = Totals::begin(8).await;
        for (transport, attachments) in [("quic", 1000), ("tls", 1000)] {
            let mut town = Town::start(Layout::over(transport).with_shipped_times()).await;
            // Pools and tables have their size after some.
            attach_again(&mut town, 20).await;
            let trial = Trial::begin(8);
            total.fault();
            town.wire.every(|rule| rule.hole = true);
            town.burst(30, 0);
            town.detached().await;
            town.wire.every(|rule| rule.hole = false);
            town.reattach().await;
            town.settle().await;
            total.over();
            attach_again(&mut town, attachments).await;
            town.settle().await;
            total.end(trial, town, "quic and tls, 1000 attachments each; dead after 15 s").await;
        }
    });
}

async fn attach_again(town: &mut Town, times: u64) {
    for time in 0..times {
        let before = epoch(&town.tunnel().await);
        if time % 10 == 0 {
            town.burst(1, 0);
        }
        town.reattach().await;
        town.until("the next carrier", |tunnel| tunnel["attached"] == true && epoch(tunnel) > before).await;
    }
}

/// The old carrier still stands at the relay, with a second's worth of frames on its way, when the tunnel is resumed over another.
#[test]
fn fault_09_two_carriers_claim_one_tunnel() {
    alone(async || late_carrier(9).await);
}

#[test]
fn fault_10_late_frames_of_the_fenced_carrier() {
    alone(async || late_carrier(10).await);
}

async fn late_carrier(number: u8) {
    let mut town = Town::start(Layout::default()).await;
    town.until("QUIC", |tunnel| tunnel["transport"] == "quic").await;
    let trial = Trial::begin(number);
    let mut late = 0;
    for _ in 0..3 {
        let before = epoch(&town.tunnel().await);
        town.wire.rule(Kind::Udp, Way::ToRelay, |rule| rule.delay = Duration::from_millis(900));
        town.burst(20, 0);
        tokio::time::sleep(UNDER_WAY).await;
        town.wire.rule(Kind::Udp, Way::ToConnector, |rule| rule.hole = true);
        town.reattach().await;
        town.until("TCP", |tunnel| tunnel["transport"] == "tls" && tunnel["attached"] == true).await;
        let at_attachment = town.wire.passed(Kind::Udp, Way::ToRelay);
        assert!(town.relay_epoch().await > before);
        town.burst(5, 0);
        town.settle().await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        late += town.wire.passed(Kind::Udp, Way::ToRelay) - at_attachment;
        town.wire.every(|rule| (rule.delay, rule.hole) = (Duration::ZERO, false));
        town.wire.block(Kind::Tcp, true);
        town.until("QUIC", |tunnel| tunnel["transport"] == "quic" && tunnel["attached"] == true).await;
        town.wire.block(Kind::Tcp, false);
    }
    assert!(late > 0, "frames of the old carrier came late");
    let took = trial.elapsed() / 3;
    let tally = town.settle().await;
    trial.end(tally, took, &format!("quic, then tls; {late} bytes came after the fence")).await;
    town.stop().await;
}

/// In mid-life the path becomes one of MTU 1280 that swallows, without a word, what is longer.
#[test]
fn fault_40_large_datagrams_are_swallowed_in_mid_life() {
    alone(async || {
        let mut town = Town::start(Layout::over("quic")).await;
        town.burst(20, 3000);
        town.settle().await;
        let trial = Trial::begin(40);
        town.wire.every(|rule| rule.largest = Some(1252));
        town.burst(40, 3000);
        let tally = town.settle().await;
        let took = trial.elapsed();
        let note = format!("quic, 240 KB each way; {} carriers", town.tunnel().await["attachments"]);
        trial.end(tally, took, &note).await;
        town.stop().await;
    });
}

/// Ends the carrier so that what is on the wire is lost: the connector hears of it at once, the relay over TCP too. Tells the epoch that
/// ended.
async fn lose(town: &Town, transport: &str) -> u64 {
    let before = epoch(&town.tunnel().await);
    if transport == "tls" {
        town.wire.cut();
    }
    town.reattach().await;
    before
}

/// One line for a case that plays in several towns.
struct Totals {
    tally: Tally,
    worst: Duration,
    since: tokio::time::Instant,
    number: u8,
}

impl Totals {
    #[expect(clippy::unused_async, reason = "it is made where a runtime is")]
    async fn begin(number: u8) -> Self {
        Self { tally: Tally::default(), worst: Duration::ZERO, since: tokio::time::Instant::now(), number }
    }

    fn fault(&mut self) {
        self.since = tokio::time::Instant::now();
    }

    fn over(&mut self) {
        self.worst = self.worst.max(self.since.elapsed());
    }

    async fn end(&mut self, trial: Trial, town: Town, note: &str) {
        assert_eq!(trial.number, self.number);
        self.tally = self.tally.and(town.settle().await);
        trial.end(self.tally, self.worst, note).await;
        town.stop().await;
    }
}
