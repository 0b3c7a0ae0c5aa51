//! `[tunnel]`: what either role's end of its tunnels may hold, and how it takes its leave.

use std::time::Duration;

use super::reader::Table;

/// Below it a handful of busy customers would be all.
pub const LEAST_REPLAY_MIB: u32 = 16;

/// Longest drain: who waits longer has forgotten what he waits for.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);

/// What either role is told of its tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// How long a role that is told to stop goes on with what stands; zero for not at all.
    pub drain: Duration,
    /// MiB that all tunnels of the process may hold for replay; a quarter of its memory where absent.
    pub replay_memory_mib: Option<u32>,
}

impl Tunnel {
    /// Takes the keys that both roles know.
    pub(super) fn read(table: &Table<'_>, default: Self) -> Self {
        let tunnel = Self {
            drain: table.or("drain", default.drain, "\"30s\""),
            replay_memory_mib: table.optional("replay_memory_mib", "512").or(default.replay_memory_mib),
        };
        if tunnel.drain > LONGEST_DRAIN {
            table.fault("drain", "`tunnel.drain` is over a day".into(), "write \"30s\"");
        }
        if tunnel.replay_memory_mib.is_some_and(|mib| mib < LEAST_REPLAY_MIB) {
            let message =
                format!("`tunnel.replay_memory_mib` is under {LEAST_REPLAY_MIB}: new sessions would be refused at the first bulk");
            table.fault("replay_memory_mib", message, "write 512, or leave the line out for a quarter of the memory");
        }
        tunnel
    }
}
