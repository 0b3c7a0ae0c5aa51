//! The main job across a real firewall: a customer on the Internet and an agent on the LAN talk through a relay and a
//! connector, and the conversation survives its tunnel's carrier.

use std::time::Duration;

use super::network::{DMZ, Lab, Place, TUNNEL};
use super::site::Site;
use crate::fault_table::tallied;
use crate::interop::matrix::{assert_numbered, assert_on_screen, take_offer};
use crate::interop::{Driver, Kind, Needs, Tls};

const MESSAGES: usize = 100;

/// What happens in the middle of a burst, and whether the carrier must die of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Shorter than the 15 s after which a silent carrier is dead.
    Short,
    /// Longer than that.
    Long,
    /// The connector drops its carrier and dials again.
    Reattach,
    /// The kernel aborts the connector's UDP socket under it. Whether the carrier dies of it or goes on from another port
    /// depends on who meets the error first, the reader or the writer.
    SocketAborted,
}

#[test]
fn slixmpp_talks_through_the_firewall_and_through_every_cut() {
    talk_through_the_cuts(Kind::Slixmpp, Kind::Slixmpp, "auto");
}

#[test]
fn slixmpp_talks_over_tcp_alone_through_every_cut() {
    talk_through_the_cuts(Kind::Slixmpp, Kind::Slixmpp, "tls");
}

#[test]
fn profanity_talks_through_the_firewall_and_through_every_cut() {
    talk_through_the_cuts(Kind::Profanity, Kind::Profanity, "quic");
}

fn talk_through_the_cuts(customer_kind: Kind, agent_kind: Kind, transport: &str) {
    let needs =
        Needs::clients(&[customer_kind, agent_kind]).program("unshare").program("nsenter").program("ip").program("nft").program("ss");
    if !needs.user_namespaces().met("a conversation through the firewall") {
        return;
    }
    let lab = Lab::start();
    let site = Site::start(&lab, transport);
    let mut agent = Driver::start_under(&nsenter(&lab, Place::Lan), agent_kind, "the agent", &site.ca_file());
    let agent_login = site.agent(Tls::Starttls);
    agent.connect(&agent_login);
    let mut customer = Driver::start_under(&nsenter(&lab, Place::Internet), customer_kind, "the customer", &site.ca_file());
    customer.connect(&site.customer(Tls::Direct));
    customer.send(&site.queue(), "hello");
    let proxy = take_offer(&mut agent, &agent_login, customer_kind);
    assert_on_screen(&mut agent, agent_kind, &agent_login, customer_kind);

    let mut round = Round { lab: &lab, site: &site, customer: &mut customer, agent: &mut agent, proxy: &proxy };
    round.calm();
    round.narrow();
    round.lossy();
    if transport == "auto" {
        round.udp_dropped();
    }
    round.cut(Cut::Short);
    round.cut(Cut::Long);
    round.cut(Cut::Reattach);
    round.cut(Cut::SocketAborted);

    assert_eq!(lab.packets(Place::Firewall, "dmz_to_lan_refused"), 0, "the DMZ tried to open something on the LAN");
    assert_eq!(lab.packets(Place::Firewall, "dmz_to_internet_refused"), 0, "the relay dialled out");
    assert_eq!(lab.packets(Place::Lan, "opened_from_outside"), 0, "something was opened on the LAN from outside");
    let customer_saw = customer.quit_without_errors();
    let agent_saw = agent.quit_without_errors();
    let without_udp = if transport == "auto" { &["UdpDropped"][..] } else { &[] };
    for name in ["Calm", "Narrow", "Lossy", "Short", "Long", "Reattach", "SocketAborted"].iter().chain(without_udp) {
        assert_numbered(&customer_saw, &format!("{name} agent"), MESSAGES);
        assert_numbered(&agent_saw, &format!("{name} customer"), MESSAGES);
    }
}

/// A conversation in which bursts run both ways.
#[derive(Debug)]
struct Round<'a> {
    lab: &'a Lab,
    site: &'a Site,
    customer: &'a mut Driver,
    agent: &'a mut Driver,
    proxy: &'a str,
}

impl Round<'_> {
    fn cut(&mut self, cut: Cut) {
        let name = format!("{cut:?}");
        let before = self.site.tunnels();
        self.say(&name, 1..=MESSAGES / 2);
        self.lab.cut_off_the_lan();
        let held = self.held_at_rest();
        self.say(&name, MESSAGES / 2 + 1..=MESSAGES);
        // Either end has taken something since the cut that the other cannot have received.
        for (end, held) in held.into_iter().enumerate() {
            self.site.await_tunnel(end, "more held than before the cut", |tunnel| tunnel["held_bytes"].as_u64() > Some(held));
        }
        match cut {
            Cut::Short => self.drop_everything_for(Duration::from_secs(5)),
            Cut::Long => self.drop_everything_for(Duration::from_secs(20)),
            Cut::Reattach => self.site.reattach(),
            Cut::SocketAborted => abort_socket(self.lab),
        }
        self.lab.restore();
        self.complete(&name);
        if matches!(cut, Cut::Long | Cut::Reattach) {
            for (before, after) in before.iter().zip(&self.site.tunnels()) {
                for key in ["epoch", "replayed"] {
                    assert!(after[key].as_u64().unwrap() > before[key].as_u64().unwrap(), "{cut:?}: {key} rose: {before} {after}");
                }
            }
        }
    }

    /// The bytes that the relay and the connector hold, once nothing of what was on its way before the cut changes them. What is
    /// held and received already is not replayed, so that to hold something says nothing yet.
    fn held_at_rest(&self) -> [u64; 2] {
        let held = || self.site.tunnels().map(|tunnel| tunnel["held_bytes"].as_u64().unwrap());
        let mut before = held();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(300));
            let after = held();
            if after == before {
                return after;
            }
            before = after;
        }
        panic!("what both ends hold never comes to rest: {before:?}");
    }

    fn drop_everything_for(&self, time: Duration) {
        self.lab.cut();
        std::thread::sleep(time);
    }

    /// A hundred messages each way with nothing in their way.
    fn calm(&mut self) {
        self.say("Calm", 1..=MESSAGES);
        self.complete("Calm");
    }

    /// A path that swallows large packets (fault 40): a carrier notices it in time, or never sends such.
    fn narrow(&mut self) {
        let before = self.site.tunnels();
        self.lab.narrow();
        self.say("Narrow", 1..=MESSAGES);
        self.complete("Narrow");
        self.lab.restore();
        assert_eq!(self.site.tunnels()[0]["epoch"], before[0]["epoch"], "the carrier lived on");
        tallied(40, 2 * MESSAGES, None, "what is longer than 1280 vanishes: the carrier lives on");
    }

    fn lossy(&mut self) {
        self.lab.lose_some();
        self.say("Lossy", 1..=MESSAGES);
        self.complete("Lossy");
        self.lab.restore();
    }

    /// UDP is dropped in mid-life (fault 14), and TCP takes over.
    fn udp_dropped(&mut self) {
        self.site.await_tunnels("QUIC", |tunnel| tunnel["transport"] == "quic");
        self.say("UdpDropped", 1..=MESSAGES / 2);
        self.lab.block_udp();
        self.say("UdpDropped", MESSAGES / 2 + 1..=MESSAGES);
        // It takes 15 s of silence.
        std::thread::sleep(Duration::from_secs(10));
        self.site.await_tunnels("TCP", |tunnel| tunnel["transport"] == "tls");
        self.complete("UdpDropped");
        self.lab.restore();
    }

    fn complete(&self, name: &str) {
        self.customer.expect_texts(&format!("{name} agent"), MESSAGES);
        self.agent.expect_texts(&format!("{name} customer"), MESSAGES);
    }

    fn say(&mut self, name: &str, numbers: std::ops::RangeInclusive<usize>) {
        for number in numbers {
            self.customer.send(&self.site.queue(), &format!("{name} customer {number:02}"));
            self.agent.send(self.proxy, &format!("{name} agent {number:02}"));
        }
    }
}

/// Ends every UDP socket of the LAN's host and every TCP connection to the DMZ with ECONNABORTED, as no peer and no network can.
fn abort_socket(lab: &Lab) {
    for sockets in [&["-K", "-u", "-a", "-n"][..], &["-K", "-t", "-n", "dst", DMZ]] {
        let output = lab.command(Place::Lan, "ss").args(sockets).output().unwrap();
        assert!(output.status.success(), "ss -K (the relay's port is {TUNNEL}): {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn nsenter(lab: &Lab, place: Place) -> Vec<String> {
    [vec!["nsenter".to_owned()], lab.entrance(place)].concat()
}
