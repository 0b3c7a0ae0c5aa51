//! How much memory this process may use: what its cgroup allows it, or the machine has; and what of it replay may hold.

use std::fs;
use std::path::{Path, PathBuf};

use crate::proto::tunnel::ReplayMemory;

/// Replay holds at most one part in so many.
const SHARE: u64 = 4;

/// More cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`tunnel.replay_memory_mib = {asked}` is more than half of the {allowed} MiB that this process may use: write less, or leave the line out"
)]
pub struct TooMuch {
    asked: u32,
    allowed: u64,
}

/// The replay memory of this process: `mib` as configured, else a quarter of what the process may use. Without a limit where neither is
/// known.
///
/// # Errors
/// More is asked for than half of what there is.
pub fn replay_memory(mib: Option<u32>) -> Result<ReplayMemory, TooMuch> {
    replay_memory_of(mib, allowed(Path::new("/")))
}

fn replay_memory_of(mib: Option<u32>, allowed: Option<u64>) -> Result<ReplayMemory, TooMuch> {
    match (mib, allowed) {
        (Some(asked), Some(allowed)) if u64::from(asked) << 20 > allowed / 2 => Err(TooMuch { asked, allowed: allowed >> 20 }),
        (Some(mib), _) => Ok(ReplayMemory::new(u64::from(mib) << 20)),
        (None, Some(allowed)) => Ok(ReplayMemory::new(allowed / SHARE)),
        (None, None) => Ok(ReplayMemory::default()),
    }
}

/// The least of the machine's memory and the limits of this process's cgroup (v2) and of those above it, in bytes.
fn allowed(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total_of(&text));
    limits(root).into_iter().chain(machine).min()
}

fn limits(root: &Path) -> Vec<u64> {
    let mount = root.join("sys/fs/cgroup");
    let named = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // In a container the own group is often mounted as the root of all.
    let own = named.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut folder = mount.join(own);
    let mut found = Vec::new();
    loop {
        found.extend(["memory.max", "memory.high"].iter().filter_map(|name| limit_in(&folder.join(name))));
        if folder == mount || !folder.starts_with(&mount) || !folder.pop() {
            return found;
        }
    }
}

/// A number of bytes; `max` is none.
fn limit_in(file: &PathBuf) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `MemTotal` of /proc/meminfo.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_of_the_groups_and_the_machine_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
        let group = ("proc/self/cgroup", "0::/system.slice/outgate.service\n");
        let own = "sys/fs/cgroup/system.slice/outgate.service/memory.max";
        let above = "sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(allowed(host(&[meminfo]).path()), Some(16 * GIB));
        assert_eq!(allowed(host(&[meminfo, group, (own, "max\n")]).path()), Some(16 * GIB));
        assert_eq!(allowed(host(&[meminfo, group, (own, "4294967296\n"), (above, "2147483648\n")]).path()), Some(2 * GIB));
        assert_eq!(allowed(host(&[meminfo, group, (own, "1073741824\n"), (above, "max\n")]).path()), Some(GIB));
        assert_eq!(
            allowed(host(&[meminfo, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "536870912")]).path()),
            Some(GIB / 2)
        );
        assert_eq!(allowed(host(&[]).path()), None);
    }

    #[test]
    fn a_quarter_is_the_default_and_more_than_half_is_refused() {
        let limit = |mib, allowed| replay_memory_of(mib, allowed).map(|memory| memory.limit());
        assert_eq!(limit(None, Some(4 * GIB)), Ok(GIB));
        assert_eq!(limit(Some(512), Some(4 * GIB)), Ok(GIB / 2));
        assert_eq!(limit(Some(2049), Some(4 * GIB)), Err(TooMuch { asked: 2049, allowed: 4096 }));
        assert_eq!(limit(Some(2049), None), Ok(2049 << 20));
        assert_eq!(limit(None, None), Ok(u64::MAX));
    }
}
