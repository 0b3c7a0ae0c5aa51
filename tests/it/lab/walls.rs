//! The lab holds what it promises, shown with plain sockets before Outgate is put into it.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::network::{DMZ, DOOR, LAN, Lab, Place, TUNNEL, text};
use crate::interop::Needs;

#[test]
fn the_dmz_and_the_internet_reach_nothing_on_the_lan() {
    let Some(lab) = lab("the_dmz_and_the_internet_reach_nothing_on_the_lan") else { return };
    let _listener = Probe::listen(&lab, Place::Lan, "tcp-listen", LAN, 8080);
    let _echo = Probe::listen(&lab, Place::Lan, "udp-echo", LAN, TUNNEL);
    for place in [Place::Dmz, Place::Internet] {
        assert_eq!(connect(&lab, place, LAN, 8080), "silence", "TCP from {place:?}");
        assert_eq!(Probe::asking(&lab, place, LAN, TUNNEL).ask(), "silence", "UDP from {place:?}");
    }
    assert!(lab.packets(Place::Firewall, "dmz_to_lan_refused") >= 2, "the firewall counts what it refuses to the DMZ");
    assert!(lab.packets(Place::Firewall, "internet_to_lan_refused") >= 2, "the firewall counts what it refuses to the Internet");
    assert_eq!(lab.packets(Place::Lan, "opened_from_outside"), 0, "nothing got as far as the LAN's host");
    assert_eq!(connect(&lab, Place::Lan, LAN, 8080), "connected", "the listener was there all the time");
}

#[test]
fn the_lan_host_itself_refuses_what_its_firewall_would_let_through() {
    let Some(lab) = lab("the_lan_host_itself_refuses_what_its_firewall_would_let_through") else { return };
    let _listener = Probe::listen(&lab, Place::Lan, "tcp-listen", LAN, 8080);
    assert_eq!(connect(&lab, Place::Firewall, LAN, 8080), "silence");
    assert!(lab.packets(Place::Lan, "opened_from_outside") >= 1);
}

#[test]
fn the_lan_reaches_the_tunnels_port_in_the_dmz_and_no_other() {
    let Some(lab) = lab("the_lan_reaches_the_tunnels_port_in_the_dmz_and_no_other") else { return };
    let _tunnel = Probe::listen(&lab, Place::Dmz, "udp-echo", DMZ, TUNNEL);
    let _other = Probe::listen(&lab, Place::Dmz, "udp-echo", DMZ, TUNNEL + 1);
    let _door = Probe::listen(&lab, Place::Dmz, "tcp-listen", DMZ, DOOR);
    assert_eq!(Probe::asking(&lab, Place::Lan, DMZ, TUNNEL).ask(), "answered");
    assert_eq!(Probe::asking(&lab, Place::Lan, DMZ, TUNNEL + 1).ask(), "silence");
    assert_eq!(connect(&lab, Place::Lan, DMZ, DOOR), "silence");
    assert_eq!(connect(&lab, Place::Internet, DMZ, DOOR), "connected");
    assert_eq!(Probe::asking(&lab, Place::Internet, DMZ, TUNNEL).ask(), "silence", "the tunnel is the LAN's alone");
    let _tunnel_over_tcp = Probe::listen(&lab, Place::Dmz, "tcp-listen", DMZ, TUNNEL);
    assert_eq!(connect(&lab, Place::Lan, DMZ, TUNNEL), "connected");
    assert_eq!(lab.packets(Place::Firewall, "tunnel_opened"), 2);
    assert!(lab.packets(Place::Firewall, "tunnel_back") >= 2);
    assert_eq!(lab.packets(Place::Firewall, "other_refused"), 3, "the wrong port, the door from within, the tunnel from without");
}

#[test]
fn a_cut_drops_everything_and_ends_with_the_same_flow_alive() {
    let Some(lab) = lab("a_cut_drops_everything_and_ends_with_the_same_flow_alive") else { return };
    let _tunnel = Probe::listen(&lab, Place::Dmz, "udp-echo", DMZ, TUNNEL);
    let _door = Probe::listen(&lab, Place::Dmz, "tcp-listen", DMZ, DOOR);
    let mut flow = Probe::asking(&lab, Place::Lan, DMZ, TUNNEL);
    assert_eq!(flow.ask(), "answered");
    lab.cut();
    assert_eq!(flow.ask(), "silence");
    assert_eq!(connect(&lab, Place::Internet, DMZ, DOOR), "silence");
    assert!(lab.packets(Place::Firewall, "cut") >= 2, "what the cut dropped is counted");
    lab.restore();
    assert_eq!(flow.ask(), "answered");
    assert_eq!(connect(&lab, Place::Internet, DMZ, DOOR), "connected");
}

fn lab(test: &str) -> Option<Lab> {
    let needs = Needs::default().program("unshare").program("nsenter").program("ip").program("nft").program("python3");
    needs.user_namespaces().met(test).then(Lab::start)
}

fn connect(lab: &Lab, place: Place, address: &str, port: u16) -> String {
    text(&probe(lab, place, "tcp-connect", address, port).output().unwrap()).trim().to_owned()
}

/// tests/drivers/probe.py at some place, until dropped.
#[derive(Debug)]
struct Probe {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    fn listen(lab: &Lab, place: Place, what: &str, address: &str, port: u16) -> Self {
        let mut probe = Self::start(lab, place, what, address, port);
        assert_eq!(probe.answers.next().unwrap().unwrap(), "listening");
        probe
    }

    fn asking(lab: &Lab, place: Place, address: &str, port: u16) -> Self {
        Self::start(lab, place, "udp-ask", address, port)
    }

    fn start(lab: &Lab, place: Place, what: &str, address: &str, port: u16) -> Self {
        let mut child = probe(lab, place, what, address, port).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, questions, answers }
    }

    fn ask(&mut self) -> String {
        self.questions.write_all(b"?\n").unwrap();
        self.answers.next().unwrap().unwrap()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn probe(lab: &Lab, place: Place, what: &str, address: &str, port: u16) -> Command {
    let mut command = lab.command(place, "python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/probe.py")).args([what, address, &port.to_string()]);
    command
}
