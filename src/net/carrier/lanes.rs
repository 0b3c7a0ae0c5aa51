//! The writing halves of an owner's carriers, filled from its tunnel end, and the carriers that are closing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::CarrierHandle;
use crate::proto::tunnel::{CarrierId, ConnectorEnd, Lane, RelayEnd};

/// Bytes handed to a lane at once: one quantum of the scheduler.
const QUANTUM: usize = 16 * 1024;

/// How long a closed carrier may still write what was handed to it.
const LINGER: Duration = Duration::from_millis(250);

/// Where a carrier's frames come from.
pub trait TunnelEnd {
    /// Appends frames for `lane` to `out` until it holds `max` bytes; tells whether there were any.
    fn transmit(&mut self, carrier: CarrierId, lane: Lane, max: usize, out: &mut BytesMut, now: Instant) -> bool;
    /// Whether frames of the data lane may be read.
    fn may_read_data(&self, carrier: CarrierId) -> bool;
}

impl TunnelEnd for RelayEnd {
    fn transmit(&mut self, carrier: CarrierId, lane: Lane, max: usize, out: &mut BytesMut, now: Instant) -> bool {
        self.poll_transmit(carrier, lane, max, out, now)
    }

    fn may_read_data(&self, carrier: CarrierId) -> bool {
        self.may_read(carrier, Lane::Data)
    }
}

impl TunnelEnd for ConnectorEnd {
    fn transmit(&mut self, carrier: CarrierId, lane: Lane, max: usize, out: &mut BytesMut, now: Instant) -> bool {
        self.poll_transmit(carrier, lane, max, out, now)
    }

    fn may_read_data(&self, carrier: CarrierId) -> bool {
        self.may_read(carrier, Lane::Data)
    }
}

/// All carriers of one owner by their names.
#[derive(Debug, Default)]
pub struct Lanes {
    open: BTreeMap<CarrierId, CarrierHandle>,
    closing: Vec<(Instant, CarrierHandle)>,
    is_data_held: bool,
}

impl Lanes {
    /// Takes in a carrier that opened.
    pub fn insert(&mut self, carrier: CarrierId, handle: CarrierHandle) {
        self.open.insert(carrier, handle);
    }

    /// Drops a carrier, which closes it at once; tells whether it was open.
    pub fn remove(&mut self, carrier: CarrierId) -> bool {
        self.open.remove(&carrier).is_some()
    }

    /// Closes a carrier once it has written what was handed to it.
    pub fn close(&mut self, carrier: CarrierId, now: Instant) {
        if let Some(handle) = self.open.remove(&carrier) {
            self.closing.push((now + LINGER, handle));
        }
    }

    /// The carriers that are open.
    pub fn open(&self) -> impl Iterator<Item = CarrierId> {
        self.open.keys().copied()
    }

    /// Whether this carrier is open.
    pub fn is_open(&self, carrier: CarrierId) -> bool {
        self.open.contains_key(&carrier)
    }

    /// Leaves data lanes unread, where they are lanes of their own, or reads them again; the next `fill` does it.
    pub fn hold_data(&mut self, is_held: bool) {
        self.is_data_held = is_held;
    }

    /// Whether no carrier is open or closing.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closing.is_empty()
    }

    /// When a closing carrier's time is up.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.closing.iter().map(|(until, _)| *until).min()
    }

    /// Hands frames to every lane as far as it has room, and tells which lanes may be read.
    pub fn fill(&mut self, end: &mut impl TunnelEnd, now: Instant) {
        self.closing.retain(|(until, _)| now < *until);
        for (carrier, handle) in &self.open {
            // Data never overtakes control: ATTACHED goes before what it allows, also where both lanes share a stream.
            if fill_lane(end, *carrier, Lane::Control, &handle.control, now) == Filled::ToTheLast {
                fill_lane(end, *carrier, Lane::Data, &handle.data, now);
            }
            let may_read = !self.is_data_held && end.may_read_data(*carrier);
            handle.read_data.send_if_modified(|current| std::mem::replace(current, may_read) != may_read);
        }
    }
}

/// How far a lane was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// There is nothing more for it.
    ToTheLast,
    /// There may be more, and it has no room.
    ToTheBrim,
}

fn fill_lane(end: &mut impl TunnelEnd, carrier: CarrierId, lane: Lane, sender: &mpsc::Sender<Bytes>, now: Instant) -> Filled {
    while let Ok(permit) = sender.try_reserve() {
        let mut bytes = BytesMut::new();
        if !end.transmit(carrier, lane, QUANTUM, &mut bytes, now) {
            return Filled::ToTheLast;
        }
        permit.send(bytes.freeze());
    }
    Filled::ToTheBrim
}
