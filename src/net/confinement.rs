//! What a running role gives up for good: programs, other processes, and, where it never dials, every way to make a connection.
//!
//! A seccomp filter over all threads, which the kernel keeps until the process ends. What it refuses fails with EPERM; everything else
//! goes on: accepting, datagrams to any address (QUIC's answers, readiness), files, threads. A role that never dials may make no
//! socket either but a local one for datagrams, so its sockets are opened before: reading the configuration again opens none.
//!
//! Left out: which files may be opened (the service manager's part), and where datagrams go (the firewall's).

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use nix::libc;
use rustix::process::{Pid, Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

/// Whether a role makes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialing {
    /// It serves the sockets that it has: it may open none, and has no use for a capability.
    Never,
    /// It does.
    Allowed,
}

/// Why a process is not confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// Nobody knows its system calls.
    #[error("no filter is known for {ARCH}")]
    Architecture,
    /// The filter cannot be made: a fault of this program.
    #[error("the filter cannot be made: {0}")]
    Filter(#[from] BackendError),
    /// The kernel does not take it.
    #[error("the kernel does not take the filter of system calls: {0}")]
    Kernel(#[source] seccompiler::Error),
    /// Something else could not be given up.
    #[error("cannot give up {what}: {source}")]
    GiveUp {
        /// What.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Capabilities go thread by thread: how long threads that have just begun may take to give up theirs.
const THREADS_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(5);

/// Confines this process, all of its threads, until its end.
///
/// # Errors
/// It is not confined, or not wholly.
pub fn confine(dialing: Dialing) -> Result<(), ConfinementError> {
    let give_up = |what, source: rustix::io::Errno| ConfinementError::GiveUp { what, source: source.into() };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|fault| give_up("core dumps", fault))?;
    if dialing == Dialing::Never {
        drop_capabilities().map_err(|fault| give_up("capabilities", fault))?;
        await_capabilities_gone()?;
    }
    let architecture = TargetArch::try_from(ARCH).map_err(|_unknown| ConfinementError::Architecture)?;
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules(dialing)?, SeccompAction::Allow, refusal, architecture)?;
    apply_filter_all_threads(&BpfProgram::try_from(filter)?).map_err(ConfinementError::Kernel)
}

/// Drops the capabilities of this one thread. Threads that it begins afterwards have none either.
///
/// # Errors
/// The system refuses.
pub fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Waits until no thread has a capability.
fn await_capabilities_gone() -> Result<(), ConfinementError> {
    let fault = |source| ConfinementError::GiveUp { what: "the capabilities of all threads", source };
    for _ in 0..THREADS_WITHIN.as_millis() / LOOK.as_millis() {
        if threads().map_err(fault)?.into_iter().all(|thread| capabilities(Some(thread)).is_ok_and(|sets| sets.permitted.is_empty())) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    Err(fault(io::ErrorKind::TimedOut.into()))
}

fn threads() -> io::Result<Vec<Pid>> {
    let id = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw));
    fs::read_dir("/proc/self/task")?.map(id).filter_map(Result::transpose).collect()
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// What is refused: a call with no rule always, one with rules where one of them holds.
fn rules(dialing: Dialing) -> Result<Rules, BackendError> {
    let [x32_sendmsg, x32_sendmmsg, x32_foreign] = X32_OWN;
    let mut rules = Rules::new();
    refuse(&mut rules, &FOREIGN, &[]);
    refuse(&mut rules, x32_foreign, &[]);
    if dialing == Dialing::Never {
        refuse(&mut rules, &CONNECTING, &[]);
        refuse(&mut rules, &[libc::SYS_socket], &any_but_local_datagrams()?);
        // A listener that was shut down could else be made to dial by a send.
        let dials = |flags| Ok::<_, BackendError>([has_bits(flags, libc::MSG_FASTOPEN.unsigned_abs())?]);
        refuse(&mut rules, &[libc::SYS_sendto, libc::SYS_sendmmsg], &dials(3)?);
        refuse(&mut rules, x32_sendmmsg, &dials(3)?);
        refuse(&mut rules, &[libc::SYS_sendmsg], &dials(2)?);
        refuse(&mut rules, x32_sendmsg, &dials(2)?);
    }
    Ok(rules)
}

/// Refuses the calls where one of `rules_of_each` holds, or always where there is none.
fn refuse(rules: &mut Rules, calls: &[libc::c_long], rules_of_each: &[SeccompRule]) {
    for call in calls {
        rules.insert(*call, rules_of_each.to_vec());
        if cfg!(target_arch = "x86_64") {
            rules.insert(call | X32, rules_of_each.to_vec());
        }
    }
}

/// socket(2) for anything but Unix datagrams, by which readiness is told.
fn any_but_local_datagrams() -> Result<Vec<SeccompRule>, BackendError> {
    let (domain, kind) = (0, 1);
    let local = u64::from(libc::AF_UNIX.unsigned_abs());
    let other_domain = SeccompCondition::new(domain, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, local)?;
    let mut refused = vec![SeccompRule::new(vec![other_domain])?];
    // SOCK_DGRAM is 2, and the only kind without any of these bits.
    for bit in [1, 4, 8] {
        refused.push(has_bits(kind, bit)?);
    }
    Ok(refused)
}

fn has_bits(argument: u8, bits: u32) -> Result<SeccompRule, BackendError> {
    let bits = u64::from(bits);
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)?])
}

/// Marks the calls of the x32 ABI, which come under the same architecture as x86_64's own.
const X32: libc::c_long = 0x4000_0000;

/// Where x32 has numbers of its own: sendmsg, sendmmsg; execve, ptrace, process_vm_readv and _writev, execveat.
#[cfg(target_arch = "x86_64")]
const X32_OWN: [&[libc::c_long]; 3] = [&[518], &[538], &[520, 521, 539, 540, 545]];
#[cfg(not(target_arch = "x86_64"))]
const X32_OWN: [&[libc::c_long]; 3] = [&[]; 3];

/// Calls that make a connection, or a socket that takes some.
const CONNECTING: [libc::c_long; 3] = [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// Calls that run programs, reach into other processes, change what this one sees, or go around a filter (io_uring connects without
/// calling connect). Nothing here makes any of them.
const FOREIGN: [libc::c_long; 29] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
];
