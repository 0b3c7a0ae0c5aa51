//! QUIC where it gets through, TCP where it does not, and every conversation whole.

use std::time::Duration;

use crate::fault_table::tallied;
use crate::faults::site::{Plan, Site};
use crate::faults::{Kind, Way};

/// How long a relay may take to be reached over TCP where UDP is blocked from the start.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transport_alone_carries_a_conversation() {
    for transport in ["quic", "tls"] {
        let site = Site::start(Plan::with(&format!("transport = \"{transport}\""))).await;
        site.carried_by(transport).await;
        let mut talk = site.talk().await;
        talk.burst(50);
        talk.settle().await;
        let status = site.relay.status().await;
        assert_eq!(status.tunnels[0].transport, Some(transport));
        let (udp, tcp) = (site.wire.passed(Kind::Udp, Way::ToRelay) > 0, site.wire.connections() > 0);
        assert_eq!((udp, tcp), (transport == "quic", transport == "tls"), "nothing but {transport} was tried");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_where_udp_is_blocked_from_the_start_tcp_carries_within_a_second() {
    let site = Site::start_on(Plan::default(), |wire| wire.block(Kind::Udp, true)).await;
    let (took, _) = site.carried_by("tls").await;
    assert!(took < AT_ONCE, "{took:?}");
    let at_first = took;
    let mut talk = site.talk().await;
    talk.burst(20);
    talk.settle().await;
    // The winner is remembered: the next round does not wait for QUIC.
    site.wire.cut();
    let (took, tunnel) = site.until("the next carrier", |tunnel| tunnel["attached"] == true && tunnel["epoch"] == 2).await;
    assert!(took < Duration::from_millis(250), "{took:?}");
    assert!(tunnel["last_end"].as_str().unwrap().starts_with("tls: "), "{tunnel}");
    talk.settle().await;
    tallied(13, talk.said(), Some(at_first), "UDP blocked from the start: TCP carries");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_where_udp_is_blocked_in_mid_life_nothing_is_lost() {
    let site = Site::start(Plan::default()).await;
    site.carried_by("quic").await;
    let mut talk = site.talk().await;
    talk.burst(30);
    site.wire.block(Kind::Udp, true);
    talk.burst(30);
    let (took, tunnel) = site.carried_by("tls").await;
    assert!(took < Plan::default().dead_after + AT_ONCE, "{took:?}");
    assert_eq!(tunnel["last_end"], "quic: silent for too long");
    talk.burst(30);
    talk.settle().await;
    tallied(14, talk.said(), Some(took), "UDP blocked in mid-life, dead after 1.5 s: TCP carries");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_where_udp_returns_the_tunnel_climbs_back_and_nobody_notices() {
    let plan = Plan { climb_every: Duration::from_millis(700), ..Plan::default() };
    let site = Site::start_on(plan, |wire| wire.block(Kind::Udp, true)).await;
    site.carried_by("tls").await;
    let mut talk = site.talk().await;
    // It is looked for in vain first.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(site.tunnel().await["epoch"], 1);
    site.wire.block(Kind::Udp, false);
    for _ in 0..40 {
        talk.burst(3);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, tunnel) = site.carried_by("quic").await;
    talk.burst(20);
    talk.settle().await;
    // The new carrier stood before the old one went.
    assert_eq!((&tunnel["epoch"], &tunnel["switched"]), (&2.into(), &1.into()), "{tunnel}");
    tallied(15, talk.said(), None, "UDP restored: back on QUIC, the old carrier standing meanwhile");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_schedule_is_not_noticed_on_either_transport() {
    for transport in ["quic", "tls"] {
        let plan = Plan { switch_every: Duration::from_millis(500), ..Plan::with(&format!("transport = \"{transport}\"")) };
        let site = Site::start(plan).await;
        site.carried_by(transport).await;
        let mut talk = site.talk().await;
        let (mut took, mut tunnel) = (Duration::ZERO, site.tunnel().await);
        while tunnel["switched"].as_u64() < Some(2) {
            talk.burst(2);
            tokio::time::sleep(Duration::from_millis(50)).await;
            took += Duration::from_millis(50);
            assert!(took < Duration::from_secs(20), "{tunnel}");
            tunnel = site.tunnel().await;
        }
        talk.settle().await;
        assert_eq!(tunnel["transport"], transport);
        let every = tunnel["attachments"].as_u64().unwrap() - 1;
        assert_eq!(tunnel["switched"], every, "each new carrier stood before the old one went: {tunnel}");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_16_a_nat_that_forgets_its_ports_is_not_noticed() {
    let site = Site::start(Plan::with("transport = \"quic\"")).await;
    site.carried_by("quic").await;
    let mut talk = site.talk().await;
    for _ in 0..5 {
        talk.burst(10);
        site.wire.rebind();
        talk.burst(10);
        talk.settle().await;
    }
    assert_eq!(site.tunnel().await["epoch"], 1, "the carrier lived on");
    tallied(16, talk.said(), None, "a NAT forgets its port five times: the carrier lives on");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_a_thin_wire_full_of_bulk_is_not_taken_for_dead() {
    for transport in ["quic", "tls"] {
        let site = Site::start(Plan::with(&format!("transport = \"{transport}\""))).await;
        site.carried_by(transport).await;
        let mut talk = site.talk().await;
        site.wire.every(|rule| rule.bytes_per_second = Some(125_000));
        let began = tokio::time::Instant::now();
        talk.bulk(25, 10_000);
        talk.settle().await;
        eprintln!("{transport}: 250 KB each way at 1 Mbit/s took {:?}", began.elapsed());
        assert_eq!(site.tunnel().await["epoch"], 1, "{transport} lived on");
        tallied(21, talk.said(), None, "250 KB each way at 1 Mbit/s, dead after 1.5 s: nobody died");
        site.stop().await;
    }
}
