//! Namespaces `internet | dmz | lan` around a firewall, made by tests/drivers/lab.sh without root.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde::Deserialize;
use serde_json::Value;

/// Addresses and ports that tests/drivers/lab.sh gives out.
pub(super) const DMZ: &str = "192.0.2.10";
pub(super) const LAN: &str = "10.10.0.10";
pub(super) const DOOR: u16 = 5222;
pub(super) const TUNNEL: u16 = 7443;

/// A place in the lab where a program can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Firewall,
    Internet,
    Dmz,
    Lan,
}

/// The running lab. Dropping it closes the pipe that holds its namespaces.
#[derive(Debug)]
pub(super) struct Lab {
    holder: Child,
    namespaces: Namespaces,
}

impl Lab {
    pub(super) fn start() -> Self {
        let mut holder = Command::new("unshare")
            .args(["-Urnm", "sh"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/lab.sh"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let namespaces = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("the lab did not come up ({fault}): {line:?}"));
        Self { holder, namespaces }
    }

    /// `program`, to run at `place`.
    pub(super) fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.entrance(place)).arg(program).env("PATH", search_path());
        command
    }

    /// The arguments with which nsenter runs what follows them at `place`.
    pub(super) fn entrance(&self, place: Place) -> Vec<String> {
        let pid = match place {
            Place::Firewall => self.namespaces.firewall,
            Place::Internet => self.namespaces.internet,
            Place::Dmz => self.namespaces.dmz,
            Place::Lan => self.namespaces.lan,
        };
        ["-t", &pid.to_string(), "-U", "-n", "--preserve-credentials", "--"].map(ToOwned::to_owned).to_vec()
    }

    /// From now on the firewall drops every packet between any two networks.
    pub(super) fn cut(&self) {
        self.nft(Place::Firewall, "add rule inet scissors forward counter name cut drop");
    }

    /// From now on the firewall drops every packet from and to the LAN, and with them the tunnel's; customers still reach the door.
    pub(super) fn cut_off_the_lan(&self) {
        for side in ["iifname", "oifname"] {
            self.nft(Place::Firewall, &format!("add rule inet scissors forward {side} to-lan counter name cut drop"));
        }
    }

    /// From now on the firewall drops every datagram of a tunnel over QUIC.
    pub(super) fn block_udp(&self) {
        for side in ["dport", "sport"] {
            self.nft(Place::Firewall, &format!("add rule inet scissors forward udp {side} {TUNNEL} counter name cut drop"));
        }
    }

    /// From now on the firewall drops five packets of a hundred.
    pub(super) fn lose_some(&self) {
        self.nft(Place::Firewall, "add rule inet scissors forward numgen random mod 100 < 5 counter name cut drop");
    }

    /// From now on the firewall drops, without a word, what is longer than IPv6's least MTU between the LAN and the DMZ.
    pub(super) fn narrow(&self) {
        for side in ["iifname", "oifname"] {
            self.nft(Place::Firewall, &format!("add rule inet scissors forward {side} to-lan meta length > 1280 counter name cut drop"));
        }
    }

    /// Undoes what the scissors do.
    pub(super) fn restore(&self) {
        self.nft(Place::Firewall, "flush chain inet scissors forward");
    }

    /// Packets that the named counter has seen.
    pub(super) fn packets(&self, place: Place, counter: &str) -> u64 {
        let listed = self.nft(place, "-j list counters");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let counters = listed["nftables"].as_array().unwrap().iter().map(|entry| &entry["counter"]);
        let found = counters.filter(|found| found["name"] == counter).find_map(|found| found["packets"].as_u64());
        found.unwrap_or_else(|| panic!("no counter {counter} at {place:?}: {listed}"))
    }

    fn nft(&self, place: Place, words: &str) -> String {
        let output = self.command(place, "nft").args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
        text(&output)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _status = self.holder.wait();
    }
}

/// A program's stdout.
pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An ordinary user's path lacks the folders of `ip` and `nft`.
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// The process ids by which the namespaces are entered.
#[derive(Debug, Deserialize)]
struct Namespaces {
    firewall: u32,
    internet: u32,
    dmz: u32,
    lan: u32,
}
