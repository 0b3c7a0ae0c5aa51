//! The systems' processes: they end with the program, and their CPU time and memory are read from /proc.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// A child process, leader of a process group of its own, that ends with its owner and takes its children along.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, String> {
        command.process_group(0).spawn().map(Self).map_err(|e| format!("{command:?}: {e}"))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
        let _status = self.0.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port()
}

pub(crate) fn await_port(port: u16) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("nothing listens on port {port} after 60 s"))
}

/// Processes whose cost is added up; children that appear later are found through their parent.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    roots: Vec<u32>,
}

impl Group {
    pub(crate) fn new(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self.members().into_iter().filter_map(stat).map(|fields| fields.ticks).sum();
        Duration::from_millis(ticks * 1000 / clock_ticks())
    }

    /// Resident set in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.members().into_iter().filter_map(resident).sum()
    }

    fn members(&self) -> Vec<u32> {
        let mut members = self.roots.clone();
        let all: Vec<(u32, u32)> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.parent)))
            .collect();
        let mut index = 0;
        while index < members.len() {
            let parent = members[index];
            members.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            index += 1;
        }
        members.sort_unstable();
        members.dedup();
        members
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    Some(Stat { parent: rest.get(1)?.parse().ok()?, ticks: rest.get(11)?.parse::<u64>().ok()? + rest.get(12)?.parse::<u64>().ok()? })
}

fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find(|line| line.starts_with("VmRSS:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn clock_ticks() -> u64 {
    rustix::param::clock_ticks_per_second()
}
