//! What happened in one schedule, line by line, for whoever has to understand a seed that failed.

use std::time::Instant;

use crate::proto::tunnel::frame::Frame;

/// Longest line, in bytes: bodies are long and say nothing.
const MAX_LINE: usize = 180;

/// Collects lines, or nothing.
#[derive(Debug, Default)]
pub(super) struct Trace {
    start: Option<Instant>,
    lines: Vec<String>,
}

impl Trace {
    /// Collects from `start` on.
    pub(super) fn from(start: Instant) -> Self {
        Self { start: Some(start), lines: Vec::new() }
    }

    pub(super) fn note(&mut self, now: Instant, line: impl FnOnce() -> String) {
        let Some(start) = self.start else { return };
        let line = line();
        let line = line.get(..line.floor_char_boundary(MAX_LINE)).unwrap_or(&line);
        self.lines.push(format!("{:>6} {line}", now.saturating_duration_since(start).as_millis()));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// A frame's name and channel.
pub(super) fn named(frame: &Frame) -> String {
    let name = match frame.kind {
        1 => "HELLO",
        2 => "HELLO_ACK",
        3 => "ATTACH",
        4 => "ATTACHED",
        5 => "REFUSED",
        6 => "OPEN",
        7 => "OPEN_OK",
        8 => "OPEN_REFUSED",
        9 => "DATA",
        10 => "ACK",
        11 => "COUNTED",
        12 => "OWN",
        13 => "FIN",
        14 => "RESET",
        17 => "PING",
        18 => "PONG",
        19 => "GOAWAY",
        20 => "ERROR",
        _ => "another",
    };
    format!("{name} on channel {}, {} bytes", frame.channel, frame.body.len())
}
