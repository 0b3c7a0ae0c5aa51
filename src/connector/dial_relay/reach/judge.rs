//! What the outcomes of a look mean, and what to do about them.

use crate::net::carrier::{Cause, Transport};
use crate::net::certificates::Validity;
use crate::proto::tunnel::probe;

use super::look::{Look, Outcome};
use super::{Finding, Status};

/// Those below which bulk suffers.
const SMALL: u16 = 1350;

impl Look<'_> {
    /// What to do about an attempt that failed.
    pub(super) fn remedy(&self, transport: Transport, cause: Cause) -> String {
        let relay = &self.relay.address;
        let protocol = if transport == Transport::Quic { "UDP" } else { "TCP" };
        match (cause, transport) {
            (Cause::Blocked, _) => format!("this host's own firewall forbids it: allow {protocol} to {relay} there"),
            (Cause::Unreachable | Cause::Silent | Cause::Ours, Transport::Quic) => {
                format!(
                    "let UDP to {relay} and its answers pass the firewall, also in packets of 1280 bytes (a VPN on the path may have a smaller \
                    MTU); with transport = \"auto\" the tunnel goes over TCP until then"
                )
            }
            (Cause::Unreachable | Cause::Silent | Cause::Ours, Transport::Tls) => {
                format!("let TCP to {relay} pass the firewall, or name a proxy in [relay.proxy]; see that the relay runs")
            }
            (Cause::Configuration, _) => "correct connector.toml or the files that it names (`outgate check connector.toml`)".to_owned(),
            (Cause::Inspected, _) => {
                format!("have the box on the way leave {relay} alone: the tunnel takes no certificate but its own CA's")
            }
            (Cause::Broken, _) => format!(
                "see that `server_name = \"{}\"` is a name in the relay's certificate and `ca` in [tunnel_tls] the CA that issued it",
                self.relay.server_name
            ),
            (Cause::Peer, _) => format!(
                "see the relay's log: it may not take this connector's certificate (another CA, expired, revoked, not named in relay.toml). \
                If it knows of no such attempt, something on the way resets: let {protocol} to {relay} pass, or name a proxy in [relay.proxy]"
            ),
        }
    }

    pub(super) fn welcome(&self) -> Option<(u32, &str)> {
        self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Answered(probe::Answer::Welcome { version, software, .. }) => Some((*version, software.as_str())),
            Outcome::Answered(probe::Answer::Refused(_)) | Outcome::Fault(..) => None,
        })
    }

    fn answered(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Answered(_)))
    }

    fn own_validity(&self) -> Option<Validity> {
        self.credentials.as_ref().ok()?.validity()
    }

    pub(super) fn certificate(&self) -> Finding {
        let renew = || Some("issue a new one (`outgate ca issue`, or `outgate connector enroll`)".to_owned());
        if let Err(why) = &self.credentials {
            return (Status::Failed, why.clone(), Some("name readable files in [tunnel_tls]".to_owned()));
        }
        let Some(own) = self.own_validity() else {
            return (Status::Failed, "this connector's is no X.509 certificate".to_owned(), renew());
        };
        if own.end < self.now {
            return (Status::Failed, format!("this connector's expired {} ago", days(self.now - own.end)), renew());
        }
        let answered = self.answered();
        for outcome in &self.outcomes {
            let Outcome::Fault(cause, why) = outcome else { continue };
            // Where another transport was answered, what the peer refuses is not the certificate.
            if matches!(cause, Cause::Inspected | Cause::Broken) || *cause == Cause::Peer && !answered {
                let status = if answered { Status::Warning } else { Status::Failed };
                return (status, why.clone(), Some(self.remedy(Transport::Tls, *cause)));
            }
        }
        if !answered {
            return (Status::Skipped, "the relay's was not seen".to_owned(), None);
        }
        let found =
            format!("the relay's holds for {}, ours is taken and has {} days left", self.relay.server_name, (own.end - self.now) / DAY);
        (Status::Ok, found, None)
    }

    /// A clock that is wrong shows in certificates that are not valid yet or no more.
    pub(super) fn clock(&self) -> Finding {
        let remedy = || Some("set this host's clock (`timedatectl`, NTP)".to_owned());
        let Some(own) = self.own_validity() else {
            return (Status::Skipped, "there is no certificate to compare it with".to_owned(), None);
        };
        if self.now < own.begin {
            let found = format!("it is {} behind the making of this connector's certificate", days(own.begin - self.now));
            return (Status::Failed, found, remedy());
        }
        let of_time = |outcome: &&Outcome| matches!(outcome, Outcome::Fault(Cause::Broken, why) if why.contains("not valid yet") || why.contains("expired"));
        if self.outcomes.iter().any(|outcome| of_time(&outcome)) {
            let found = "by it the relay's certificate is not valid yet, or no more".to_owned();
            return (
                Status::Failed,
                found,
                Some("compare this host's clock with the relay's; if both are right, renew its certificate".to_owned()),
            );
        }
        if let Some(ahead) = self.clock_ahead {
            let (by, direction) = (ahead.unsigned_abs(), if ahead > 0 { "behind" } else { "ahead of" });
            let found = format!("it is {} {direction} the relay's", span(by));
            return (
                Status::Warning,
                found,
                Some("set both clocks (`timedatectl`, NTP): links and certificates are judged by them".to_owned()),
            );
        }
        let found =
            if self.answered() { "within the times of both certificates" } else { "within the time of this connector's certificate" };
        (Status::Ok, found.to_owned(), None)
    }

    pub(super) fn version(&self) -> Finding {
        if let Some((version, software)) = self.welcome() {
            let software = if software.is_empty() { "software that it does not name" } else { software };
            return (Status::Ok, format!("version {version} of the protocol, with {software}"), None);
        }
        let refused = self.outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Answered(probe::Answer::Refused(code)) => Some(code),
            Outcome::Answered(probe::Answer::Welcome { .. }) | Outcome::Fault(..) => None,
        });
        match refused {
            Some(code) if code == "version" => {
                let remedy = "install releases on both sides that are no more than one version of the protocol apart".to_owned();
                (Status::Failed, "no version of the protocol in common".to_owned(), Some(remedy))
            }
            Some(code) => (Status::Failed, format!("the relay refuses: {code}"), Some("see the relay's log".to_owned())),
            None => (Status::Skipped, "no relay answered".to_owned(), None),
        }
    }
}

/// Whether datagrams of `found` bytes are enough.
pub(super) fn judge_datagrams(found: u16) -> Finding {
    if found >= SMALL {
        return (Status::Ok, format!("datagrams of {found} bytes pass"), None);
    }
    let remedy = "nothing need be done: QUIC and our TCP segments fit; bulk costs more packets. Look for a VPN or tunnel with a small MTU on the path";
    (Status::Warning, format!("datagrams of {found} bytes pass, larger ones do not"), Some(remedy.to_owned()))
}

const DAY: u64 = 86_400;

fn days(seconds: u64) -> String {
    if seconds < DAY { format!("{} minutes", seconds / 60) } else { format!("{} days", seconds / DAY) }
}

/// As exact as it is of use.
fn span(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} seconds") } else { days(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_path_is_told_and_is_no_failure() {
        assert_eq!(judge_datagrams(1452).0, Status::Ok);
        assert_eq!(judge_datagrams(1350).0, Status::Ok);
        let (status, found, remedy) = judge_datagrams(1232);
        assert_eq!(status, Status::Warning);
        assert!(found.contains("1232") && remedy.is_some());
    }
}
