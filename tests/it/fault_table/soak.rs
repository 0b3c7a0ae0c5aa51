//! A day in short: many sessions and a wire that breaks at random.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::town::{Layout, Town};
use super::{Trial, alone, asked};
use crate::crash::Dice;
use crate::faults::{Kind, Way};

/// How long it lasts where nothing else is asked for with `OUTGATE_SOAK_SECONDS`.
const SECONDS: u64 = 120;

const SESSIONS: usize = 200;

/// From one fault to the next, in ms. Drawn by its order of magnitude: half of them come within 2 s.
const PAUSE: [f64; 2] = [200.0, 20_000.0];

#[test]
fn fault_42_a_soak_with_random_cuts() {
    alone(async || {
        let mut town = Town::start(Layout::default().customers(SESSIONS)).await;
        let mut dice = Dice::new();
        let trial = Trial::begin(42);
        let until = Instant::now() + Duration::from_secs(asked("OUTGATE_SOAK_SECONDS", SECONDS));
        let (mut faults, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < until {
            let [shortest, longest] = PAUSE;
            let pause = shortest * (longest / shortest).powf(dice.between(0, 1000) as f64 / 1000.0);
            let next = Instant::now() + Duration::from_secs_f64(pause / 1000.0);
            while Instant::now() < next {
                let number = dice.between(0, SESSIONS as u64) as usize;
                town.burst_with(number, dice.between(1, 6) as usize, 0);
                sleep(Duration::from_millis(dice.between(5, 40))).await;
            }
            let began = Instant::now();
            break_wire(&mut town, dice.between(0, 6)).await;
            faults += 1;
            town.attached().await;
            slowest = slowest.max(began.elapsed());
        }
        town.wire.every(|rule| *rule = crate::faults::Rule::default());
        for kind in [Kind::Udp, Kind::Tcp] {
            town.wire.block(kind, false);
        }
        let tally = town.settle().await;
        let tunnel = town.tunnel().await;
        // At the end what carries is what carried at the beginning.
        town.wire.block(Kind::Tcp, true);
        town.reattach().await;
        town.until("QUIC", |tunnel| tunnel["attached"] == true && tunnel["transport"] == "quic").await;
        town.wire.block(Kind::Tcp, false);
        let note = format!("{SESSIONS} sessions, {faults} faults, {} attachments; slowest recovery", tunnel["attachments"]);
        trial.end(tally, slowest, &note).await;
        town.stop().await;
    });
}

async fn break_wire(town: &mut Town, which: u64) {
    match which {
        0 => town.wire.cut(),
        1 => town.wire.rebind(),
        2 => {
            town.wire.block(Kind::Udp, true);
            town.burst_with(0, 3, 0);
            town.until("TCP", |tunnel| tunnel["transport"] == "tls" && tunnel["attached"] == true).await;
            town.wire.block(Kind::Udp, false);
        }
        3 => {
            town.wire.every(|rule| rule.hole = true);
            town.detached().await;
            town.wire.every(|rule| rule.hole = false);
            town.reattach().await;
        }
        4 => {
            for kind in [Kind::Udp, Kind::Tcp] {
                town.wire.rule(kind, Way::ToRelay, |rule| rule.frozen = true);
            }
            sleep(Duration::from_millis(300)).await;
            town.wire.every(|rule| rule.frozen = false);
        }
        _ => town.reattach().await,
    }
}
