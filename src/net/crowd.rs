//! Strangers who are being served beside each other, bounded in number, in all and from one source.
//!
//! Where too many are, the one that has waited longest gives way to the newcomer: who means it is through in a few milliseconds,
//! and those that only wait cannot keep it out. One that is held in its place by [`Place::hold`] gives way to nobody.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, Id, JoinSet};

/// How many there may be at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Limits {
    pub(in crate::net) in_all: usize,
    pub(in crate::net) per_source: usize,
}

/// What became of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Begun {
    /// There was room.
    Added,
    /// This one gave way to it.
    InsteadOf(SocketAddr),
    /// It is turned away: all the others are held.
    Not,
}

/// The tasks, the one that began first in front.
#[derive(Debug)]
pub(in crate::net) struct Crowd<T> {
    tasks: JoinSet<T>,
    waiting: VecDeque<Waiting>,
    limits: Limits,
}

#[derive(Debug)]
struct Waiting {
    task: Id,
    abort: AbortHandle,
    address: SocketAddr,
    place: Place,
}

/// One's place in the crowd.
#[derive(Clone, Debug, Default)]
pub(in crate::net) struct Place(Arc<AtomicBool>);

impl Place {
    /// Gives way to nobody until [`Self::free`].
    pub(in crate::net) fn hold(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Gives way again.
    pub(in crate::net) fn free(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Send + 'static> Crowd<T> {
    pub(in crate::net) fn new(limits: Limits) -> Self {
        Self { tasks: JoinSet::new(), waiting: VecDeque::new(), limits }
    }

    pub(in crate::net) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets one in from `address`.
    pub(in crate::net) fn begin<F>(&mut self, address: SocketAddr, serve: impl FnOnce(Place) -> F) -> Begun
    where
        F: Future<Output = T> + Send + 'static,
    {
        let begun = self.make_room(source_of(address.ip()));
        if begun != Begun::Not {
            let place = Place::default();
            let abort = self.tasks.spawn(serve(place.clone()));
            self.waiting.push_back(Waiting { task: abort.id(), abort, address, place });
        }
        begun
    }

    fn make_room(&mut self, newcomer: IpAddr) -> Begun {
        let is_neighbour = |waiting: &Waiting| source_of(waiting.address.ip()) == newcomer;
        let may_leave = |waiting: &Waiting| !waiting.place.is_held();
        let leaves = if self.waiting.iter().filter(|waiting| is_neighbour(waiting)).count() >= self.limits.per_source {
            self.waiting.iter().position(|waiting| is_neighbour(waiting) && may_leave(waiting))
        } else if self.waiting.len() >= self.limits.in_all {
            self.waiting.iter().position(may_leave)
        } else {
            return Begun::Added;
        };
        let Some(Waiting { abort, address, .. }) = leaves.and_then(|at| self.waiting.remove(at)) else { return Begun::Not };
        abort.abort();
        Begun::InsteadOf(address)
    }

    /// The next that ended; `None` within where it was cut short, without where nobody is here.
    pub(in crate::net) async fn next(&mut self) -> Option<Option<T>> {
        let (id, came) = match self.tasks.join_next_with_id().await? {
            Ok((id, came)) => (id, Some(came)),
            Err(fault) => (fault.id(), None),
        };
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.task == id) {
            self.waiting.remove(at);
        }
        Some(came)
    }

    /// Ends all, and awaits them.
    pub(in crate::net) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host may choose its addresses from.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { in_all: 3, per_source: 2 };

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[tokio::test]
    async fn the_longest_waiter_of_a_source_gives_way_then_the_longest_of_all() {
        let mut crowd: Crowd<()> = Crowd::new(LIMITS);
        let mut come = |address: &str| crowd.begin(at(address), |_| std::future::pending());
        assert_eq!(come("192.0.2.1"), Begun::Added);
        assert_eq!(come("2001:db8::1"), Begun::Added);
        assert_eq!(come("2001:db8::2"), Begun::Added);
        // A third of one /64, whatever else is free; then a fourth in all.
        assert_eq!(come("2001:db8::3"), Begun::InsteadOf(at("2001:db8::1")));
        assert_eq!(come("192.0.2.9"), Begun::InsteadOf(at("192.0.2.1")));
        assert_eq!(come("::ffff:192.0.2.9"), Begun::InsteadOf(at("2001:db8::2")));
        assert_eq!(come("192.0.2.9"), Begun::InsteadOf(at("192.0.2.9")), "the same address, however it is written");
        assert_eq!(crowd.len(), 3);
        crowd.shutdown().await;
    }

    #[tokio::test]
    async fn who_is_held_gives_way_to_nobody() {
        let mut crowd: Crowd<()> = Crowd::new(LIMITS);
        let mut places = Vec::new();
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2"] {
            crowd.begin(at(address), |place| {
                place.hold();
                places.push(place);
                std::future::pending()
            });
        }
        let mut come = |address: &str| crowd.begin(at(address), |_| std::future::pending());
        assert_eq!((come("192.0.2.1"), come("192.0.2.3")), (Begun::Not, Begun::Not));
        places[1].free();
        assert_eq!(come("192.0.2.3"), Begun::InsteadOf(at("192.0.2.1")));
        assert_eq!(come("192.0.2.4"), Begun::InsteadOf(at("192.0.2.3")));
        crowd.shutdown().await;
    }

    #[tokio::test]
    async fn who_has_ended_leaves_room() {
        let mut crowd = Crowd::new(LIMITS);
        assert_eq!(crowd.begin(at("192.0.2.1"), |_| async { 7 }), Begun::Added);
        assert_eq!(crowd.next().await, Some(Some(7)));
        assert_eq!((crowd.len(), crowd.next().await), (0, None));
    }
}
