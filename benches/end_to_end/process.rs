//! CPU time and memory of a group of processes, from /proc.

use std::fs;
use std::time::Duration;

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
