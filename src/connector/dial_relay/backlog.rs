//! What the tunnel tells while the desk, or the store behind it, takes its time.
//!
//! Frames are read all the while: PONGs among them show that the carrier lives, and over TLS they stand in one row with events. What a
//! relay may send so is bounded by its credit: 64 events a channel, and the pool of 64 MiB with its reserves a tunnel. A relay that
//! sends what no credit counts is bounded here.

use std::collections::VecDeque;

use tokio::sync::mpsc::{Permit, Sender, error::TrySendError};

use crate::connector::desk::Input;
use crate::proto::tunnel::ConnectorEvent;

/// From here on the data lane is left unread where it can be (QUIC): the events of 500 busy channels.
const LONG: usize = 32 * 1024;

/// From here on nothing is read.
const FULL: usize = 64 * 1024;

/// What an OPEN or a CHECK weighs, with its link of up to 8 KiB: they are more than what an event takes beside its credit.
const QUESTION: usize = 32;

/// Room that is kept after a stall.
const KEPT: usize = 256;

/// Inputs that wait for the desk, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    inputs: VecDeque<Input>,
    weight: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, input: Input) {
        self.weight += weight_of(&input);
        self.inputs.push_back(input);
    }

    /// Hands over as much as the desk has room for. Nobody needs what a desk that has ended does not take.
    pub(super) fn pass_on(&mut self, desk: &Sender<Input>) {
        while let Some(input) = self.take() {
            if let Err(TrySendError::Full(input)) = desk.try_send(input) {
                self.weight += weight_of(&input);
                self.inputs.push_front(input);
                return;
            }
        }
        self.inputs.shrink_to(KEPT);
    }

    /// Hands over the first.
    pub(super) fn pass_one_on(&mut self, permit: Permit<'_, Input>) {
        if let Some(input) = self.take() {
            permit.send(input);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    pub(super) fn is_long(&self) -> bool {
        self.weight >= LONG
    }

    pub(super) fn is_full(&self) -> bool {
        self.weight >= FULL
    }

    fn take(&mut self) -> Option<Input> {
        let input = self.inputs.pop_front()?;
        self.weight -= weight_of(&input);
        Some(input)
    }
}

fn weight_of(input: &Input) -> usize {
    let is_question = matches!(input, Input::Tunnel { event: ConnectorEvent::Open { .. } | ConnectorEvent::Check { .. }, .. });
    if is_question { QUESTION } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::desk::RelayIndex;
    use crate::proto::tunnel::ChannelId;

    fn counted(sm_in: u32) -> Input {
        Input::Tunnel { relay: RelayIndex(0), event: ConnectorEvent::Counted { channel: ChannelId(1), sm_in } }
    }

    fn number(input: Option<Input>) -> Option<u32> {
        let Some(Input::Tunnel { event: ConnectorEvent::Counted { sm_in, .. }, .. }) = input else { return None };
        Some(sm_in)
    }

    #[tokio::test]
    async fn it_keeps_the_order_and_takes_up_where_the_desk_had_no_room() {
        let (desk, mut inputs) = tokio::sync::mpsc::channel(2);
        let mut backlog = Backlog::default();
        (0..5).for_each(|n| backlog.push(counted(n)));
        let mut taken = Vec::new();
        while !backlog.is_empty() {
            backlog.pass_on(&desk);
            taken.extend(number(inputs.recv().await));
            backlog.pass_one_on(desk.reserve().await.unwrap());
        }
        drop(desk);
        while let Some(input) = inputs.recv().await {
            taken.extend(number(Some(input)));
        }
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        assert_eq!(backlog.weight, 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut backlog = Backlog::default();
        (0..LONG - 1).for_each(|_| backlog.push(counted(0)));
        assert!(!backlog.is_long());
        (LONG - 1..FULL).for_each(|_| backlog.push(counted(0)));
        assert!(backlog.is_long() && backlog.is_full());
    }
}
