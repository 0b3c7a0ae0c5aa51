//! Frame types and their protobuf bodies. Tags are stable; unknown fields are skipped.
//!
//! Only shapes live here; what they mean is in the ends. `docs/tunnel-protocol.md` is the same table for people.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::frame::{self, Frame};

/// Frame types.
pub(super) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const HELLO_ACK: u8 = 2;
    pub(crate) const ATTACH: u8 = 3;
    pub(crate) const ATTACHED: u8 = 4;
    pub(crate) const REFUSED: u8 = 5;
    pub(crate) const OPEN: u8 = 6;
    pub(crate) const OPEN_OK: u8 = 7;
    pub(crate) const OPEN_REFUSED: u8 = 8;
    pub(crate) const DATA: u8 = 9;
    pub(crate) const ACK: u8 = 10;
    pub(crate) const COUNTED: u8 = 11;
    pub(crate) const OWN: u8 = 12;
    pub(crate) const FIN: u8 = 13;
    pub(crate) const RESET: u8 = 14;
    pub(crate) const CHECK: u8 = 15;
    pub(crate) const VERDICT: u8 = 16;
    pub(crate) const PING: u8 = 17;
    pub(crate) const PONG: u8 = 18;
    pub(crate) const GOAWAY: u8 = 19;
    pub(crate) const ERROR: u8 = 20;
    pub(crate) const CERT_REQ: u8 = 21;
    pub(crate) const CERT: u8 = 22;
    pub(crate) const POLICY: u8 = 23;
    pub(crate) const TRUST: u8 = 24;
}

/// Appends one frame with body `message` to `out`.
pub(super) fn put<M: Message>(out: &mut BytesMut, kind: u8, flags: u8, channel: u32, message: &M) {
    frame::put_header(out, kind, flags, channel, message.encoded_len());
    message.encode_raw(out);
}

/// One encoded frame.
pub(super) fn encoded<M: Message>(kind: u8, flags: u8, channel: u32, message: &M) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out, kind, flags, channel, message);
    out.freeze()
}

/// Reads a frame's body.
pub(super) fn body<M: Message + Default>(frame: &Frame) -> Result<M, prost::DecodeError> {
    M::decode(frame.body.clone())
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) min_version: u32,
    #[prost(uint32, tag = "2")]
    pub(super) max_version: u32,
    #[prost(uint64, tag = "3")]
    pub(super) features: u64,
    #[prost(string, tag = "4")]
    pub(super) node: String,
    #[prost(string, tag = "5")]
    pub(super) software: String,
    #[prost(uint32, tag = "6")]
    pub(super) max_body: u32,
    #[prost(uint32, tag = "7")]
    pub(super) max_channels: u32,
    #[prost(uint64, tag = "8")]
    pub(super) clock_millis: u64,
    #[prost(bytes = "bytes", tag = "9")]
    pub(super) incarnation: Bytes,
}

/// Where one channel stands at the side that sends it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Cursor {
    #[prost(uint32, tag = "1")]
    pub(super) channel: u32,
    /// The next number expected from the peer; 0 where none is known yet.
    #[prost(uint64, tag = "2")]
    pub(super) next: u64,
    /// All numbers of the peer up to here are handled.
    #[prost(uint64, tag = "3")]
    pub(super) handled: u64,
    /// Connector: the OPEN was answered. Relay: the answer arrived.
    #[prost(bool, tag = "4")]
    pub(super) answered: bool,
    /// Relay: outward numbers up to here are confirmed by the client.
    #[prost(uint64, tag = "5")]
    pub(super) confirmed: u64,
    /// Connector: the client's stanza count that is handled.
    #[prost(uint32, optional, tag = "6")]
    pub(super) sm_in: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attach {
    /// Empty: NEW. Else RESUME.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) tunnel_id: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) last_epoch: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) cursors: Vec<Cursor>,
    /// NEW: the relay numbers its channels from here.
    #[prost(uint32, tag = "4")]
    pub(super) channels_from: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attached {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) tunnel_id: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) cursors: Vec<Cursor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Refused {
    #[prost(string, tag = "1")]
    pub(super) code: String,
    #[prost(uint64, tag = "2")]
    pub(super) retry_after_millis: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Software {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, tag = "3")]
    pub(super) system: String,
    #[prost(uint32, tag = "4")]
    pub(super) source: u32,
    #[prost(uint32, tag = "5")]
    pub(super) confidence: u32,
    #[prost(string, tag = "6")]
    pub(super) ja4: String,
    #[prost(string, tag = "7")]
    pub(super) library: String,
    #[prost(bool, tag = "8")]
    pub(super) contradicted: bool,
    #[prost(uint32, tag = "9")]
    pub(super) lacks: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Admission {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(string, tag = "2")]
    pub(super) queue: String,
    /// Empty: anonymous.
    #[prost(string, tag = "3")]
    pub(super) link: String,
    #[prost(string, tag = "4")]
    pub(super) kid: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Open {
    /// Sixteen bytes: a new session. Empty: an attach.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) open_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) secret: Bytes,
    #[prost(uint64, tag = "3")]
    pub(super) in_next: u64,
    #[prost(uint64, tag = "4")]
    pub(super) out_next: u64,
    #[prost(uint32, optional, tag = "5")]
    pub(super) client_h: Option<u32>,
    #[prost(message, optional, tag = "6")]
    pub(super) admission: Option<Admission>,
    #[prost(string, tag = "7")]
    pub(super) client_addr: String,
    #[prost(string, tag = "8")]
    pub(super) local_addr: String,
    #[prost(string, tag = "9")]
    pub(super) protocol: String,
    #[prost(string, optional, tag = "10")]
    pub(super) sni: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub(super) software: Option<Software>,
    #[prost(bool, tag = "12")]
    pub(super) resumable: bool,
    #[prost(uint32, tag = "13")]
    pub(super) attachment: u32,
    #[prost(uint32, tag = "14")]
    pub(super) waited_millis: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct OpenOk {
    #[prost(uint64, tag = "1")]
    pub(super) in_next: u64,
    #[prost(uint64, tag = "2")]
    pub(super) out_first: u64,
    #[prost(uint64, tag = "3")]
    pub(super) out_next: u64,
    #[prost(uint32, tag = "4")]
    pub(super) attachment: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpenRefused {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(uint64, tag = "3")]
    pub(super) retry_after_millis: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Data {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint32, tag = "2")]
    pub(super) sm_in: u32,
    /// 0 event, 1 ephemeral, 2 tombstone.
    #[prost(uint32, tag = "3")]
    pub(super) mark: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) event: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fin {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint32, tag = "2")]
    pub(super) sm_in: u32,
    #[prost(uint32, tag = "3")]
    pub(super) reason: u32,
    #[prost(string, tag = "4")]
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Ack {
    #[prost(uint64, tag = "1")]
    pub(super) handled: u64,
    #[prost(uint64, tag = "2")]
    pub(super) received: u64,
    #[prost(uint32, tag = "3")]
    pub(super) credit: u32,
    #[prost(uint64, tag = "4")]
    pub(super) confirmed: u64,
    #[prost(uint32, optional, tag = "5")]
    pub(super) sm_in: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Counted {
    #[prost(uint32, tag = "1")]
    pub(super) sm_in: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Own {
    #[prost(uint64, tag = "1")]
    pub(super) after: u64,
    #[prost(uint32, tag = "2")]
    pub(super) count: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Reset {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Check {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) admission: Option<Admission>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Verdict {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// 0: let in. Else a refusal code.
    #[prost(uint32, tag = "2")]
    pub(super) code: u32,
    #[prost(string, tag = "3")]
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Ping {
    #[prost(uint64, tag = "1")]
    pub(super) nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GoAway {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(uint64, tag = "2")]
    pub(super) deadline_millis: u64,
    #[prost(string, repeated, tag = "3")]
    pub(super) alternates: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Error {
    #[prost(string, tag = "1")]
    pub(super) code: String,
}
