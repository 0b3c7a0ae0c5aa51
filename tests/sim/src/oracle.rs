//! The oracle: what must hold of everyone at the end, and of those whom an older store has harmed.

use crate::proto::tunnel::Payload;

use super::carrier::SimCarrier;
use super::customer::{Customer, Stage};
use super::desk::{Desk, Kept, Out};
use super::world::World;

impl World {
    /// The store came back older: who was told more than it knows must hear of it.
    pub(super) fn note_harm(&mut self) {
        let Some(floor) = self.desk.floors.last() else { return };
        for customer in &mut self.customers {
            let over = matches!(customer.stage, Stage::Left | Stage::Ended | Stage::Lost);
            let answered = matches!(customer.stage, Stage::Open | Stage::Returned);
            let harmed = floor.get(&customer.secret).map_or(answered, |kept| exceeds(customer, kept));
            // Who is gone is told nothing any more, and what was kept of him may be less.
            customer.is_harmed |= harmed || over || self.desk.unknown_attachments.contains(&customer.secret);
            // Stanzas that were no events are counted anew with what comes next: of them alone nothing is missed.
            customer.must_end |= answered && floor.get(&customer.secret).is_none_or(|kept| misses_events(customer, kept));
            if harmed && answered {
                let kept = floor.get(&customer.secret).map(|kept| (kept.record.len(), kept.sm_in, kept.out.len(), kept.out_limit()));
                let his = (customer.in_handled, customer.h, customer.got.len());
                self.trace.note(self.now, || format!("{:?} has {his:?} and the store {kept:?} (in, h, out, out limit)", customer.key));
            }
        }
    }

    /// Whether an older store can explain that a session ends.
    pub(super) fn may_be_harmed(&self, index: usize) -> bool {
        let customer = &self.customers[index];
        customer.is_harmed || self.desk.floors.iter().any(|floor| floor.get(&customer.secret).is_none_or(|kept| exceeds(customer, kept)))
    }

    /// Compares what each side has with what the other said.
    pub(super) fn judge(&mut self) {
        self.count();
        self.out.lost = self.customers.iter().filter(|customer| customer.stage == Stage::Lost).count() as u64;
        if !self.out.violations.is_empty() {
            return;
        }
        let mut faults = Vec::new();
        if !self.stands_everywhere() || !self.carriers.iter().any(SimCarrier::is_whole) {
            faults.push("a tunnel does not stand in calm weather".to_owned());
        }
        if !self.desk.is_idle() {
            faults.push("the desk is not idle".to_owned());
        }
        for (index, customer) in self.customers.iter().enumerate() {
            faults.extend(judge(customer, &self.desk, self.may_be_harmed(index)));
        }
        for end in &self.connectors {
            let stats = end.stats();
            if stats.channels != 0 || stats.held_bytes != 0 {
                faults.push(format!("the connector keeps {} channels and {} bytes", stats.channels, stats.held_bytes));
            }
        }
        for end in &self.relays {
            for (_, stats) in end.stats() {
                if stats.channels != 0 || stats.held_bytes != 0 {
                    let left = self.customers.iter().map(|customer| (customer.key.0, customer.stage, &customer.left_behind));
                    let left: Vec<_> = left.collect();
                    faults.push(format!("a relay keeps {} channels and {} bytes: {left:?}", stats.channels, stats.held_bytes));
                }
            }
        }
        if self.accounted() != 0 {
            faults.push(format!("{} bytes of replay memory were never given back", self.accounted()));
        }
        self.out.violations = faults;
    }
}

/// Whether he was told more, or has more, than this store knows.
fn exceeds(customer: &Customer, kept: &Kept) -> bool {
    misses_events(customer, kept) || customer.h > kept.sm_in
}

/// Whether the store lacks an event that the customer was told is kept, or may give a number again that he has.
fn misses_events(customer: &Customer, kept: &Kept) -> bool {
    customer.in_handled > kept.record.len() as u64 || customer.got.len() as u64 >= kept.out_limit()
}

fn judge(customer: &Customer, desk: &Desk, may_be_harmed: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let key = customer.key;
    let nothing = Kept::default();
    let kept = desk.store.get(&customer.secret).unwrap_or(&nothing);
    if may_be_harmed && matches!(customer.stage, Stage::Lost | Stage::Left) {
        return faults;
    }
    if kept.record.len() > customer.said.len() || kept.record != customer.said[..kept.record.len()] {
        faults.push(format!("{key:?}: the record is not what the customer said"));
    }
    let wrong = |(got, sent): (&Payload, &Out)| match (got, sent) {
        (Payload::Event(got), Out::Event(sent)) | (Payload::Ephemeral(got), Out::Ephemeral(sent)) => got != sent,
        (Payload::Tombstone, Out::Ephemeral(_)) => false,
        _ => true,
    };
    if customer.got.iter().zip(&kept.out).any(wrong) || customer.got.len() > kept.out.len() {
        faults.push(format!("{key:?}: the customer got what the agent did not say"));
    }
    let events = kept.out.iter().filter(|item| **item != Out::Fin).count();
    let (record, said, got) = (kept.record.len(), customer.said.len(), customer.got.len());
    match customer.stage {
        Stage::Lost => {}
        Stage::Left => {
            if record != said || !kept.fin_in {
                faults.push(format!("{key:?}: left, but {record} of {said} are on record"));
            }
        }
        Stage::Ended => {
            if (record != said && !customer.is_cut_short) || got != events {
                faults.push(format!("{key:?}: ended with {record} of {said} in and {got} of {events} out"));
            }
        }
        Stage::Opening | Stage::Open | Stage::Away(_) | Stage::Returning | Stage::Returned => {
            faults.push(format!("{key:?} has not ended: {:?}", customer.stage));
        }
    }
    if customer.must_end && customer.stage == Stage::Ended {
        faults.push(format!("{key:?}: an older store went on as if nothing had happened"));
    }
    if customer.stage == Stage::Ended && customer.own_done.len() > customer.own_wanted.len() {
        faults.push(format!("{key:?}: an own stanza was recorded twice"));
    }
    faults
}
