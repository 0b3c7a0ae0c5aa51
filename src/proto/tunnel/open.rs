//! OPEN, CHECK and the codes of refusals and ends, between their domain types and the wire.
//!
//! Everything read here was written by the peer: lengths are bounded, text has no control characters, and what does not
//! hold is refused as a whole.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::fingerprint::{ClientSoftware, Confidence, Features, Ja4, MAX_SOFTWARE_BYTES, SoftwareSource};
use crate::session::{CloseReason, OpenId, SessionSecret};

use super::event::is_clean_text;
use super::{Admission, Assertion, Fin, Open, OpenKind, RefusalCode, ResetCode, wire};

/// Largest domain, queue, protocol or server name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Largest link token, in bytes.
const MAX_LINK_BYTES: usize = 8 * 1024;

/// Largest sentence for a person, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 1024;

/// The peer sent a value that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadValue;

pub(super) fn open_to_wire(open: &Open) -> wire::Open {
    let (open_id, secret, in_next, out_next, client_h, attachment) = match open.kind {
        OpenKind::New { open_id, secret } => (Bytes::copy_from_slice(&open_id.0), secret, 0, 0, None, 0),
        OpenKind::Attach { secret, in_next, out_next, client_h, attachment } => {
            (Bytes::new(), secret, in_next, out_next, client_h, attachment)
        }
    };
    wire::Open {
        open_id,
        secret: Bytes::copy_from_slice(&secret.0),
        in_next,
        out_next,
        client_h,
        admission: Some(admission_to_wire(&open.admission)),
        client_addr: open.client_addr.to_string(),
        local_addr: open.local_addr.to_string(),
        protocol: open.protocol.clone(),
        sni: open.sni.clone(),
        software: Some(software_to_wire(&open.software)),
        resumable: open.resumable,
        attachment,
        waited_millis: u32::try_from(open.waited.as_millis()).unwrap_or(u32::MAX),
    }
}

pub(super) fn open_from_wire(open: wire::Open) -> Result<Open, BadValue> {
    let secret = SessionSecret(sixteen(&open.secret)?);
    let kind = if open.open_id.is_empty() {
        let wire::Open { in_next, out_next, client_h, attachment, .. } = open;
        OpenKind::Attach { secret, in_next, out_next, client_h, attachment }
    } else {
        OpenKind::New { open_id: OpenId(sixteen(&open.open_id)?), secret }
    };
    Ok(Open {
        kind,
        admission: admission_from_wire(open.admission.ok_or(BadValue)?)?,
        client_addr: address(&open.client_addr)?,
        local_addr: address(&open.local_addr)?,
        protocol: name(open.protocol)?,
        sni: open.sni.map(name).transpose()?,
        software: software_from_wire(open.software.ok_or(BadValue)?)?,
        resumable: open.resumable,
        waited: Duration::from_millis(open.waited_millis.into()),
    })
}

pub(super) fn admission_to_wire(admission: &Admission) -> wire::Admission {
    let (link, kid) = match &admission.assertion {
        Assertion::Anonymous => (String::new(), String::new()),
        Assertion::Link { token, kid } => (token.clone(), kid.clone()),
    };
    wire::Admission { domain: admission.domain.clone(), queue: admission.queue.clone(), link, kid }
}

pub(super) fn admission_from_wire(admission: wire::Admission) -> Result<Admission, BadValue> {
    let assertion = if admission.link.is_empty() {
        Assertion::Anonymous
    } else {
        let printable = admission.link.bytes().all(|byte| byte.is_ascii_graphic());
        if admission.link.len() > MAX_LINK_BYTES || !printable {
            return Err(BadValue);
        }
        Assertion::Link { token: admission.link, kid: name(admission.kid)? }
    };
    Ok(Admission { domain: name(admission.domain)?, queue: name(admission.queue)?, assertion })
}

pub(super) fn software_to_wire(software: &ClientSoftware) -> wire::Software {
    wire::Software {
        name: software.name.clone(),
        version: software.version.clone(),
        system: software.system.clone(),
        source: match software.source {
            // A name without another source is of the hello: connectors that know no third source take it so too.
            SoftwareSource::None | SoftwareSource::Ja4 => 0,
            SoftwareSource::Asked => 1,
            SoftwareSource::Caps => 2,
        },
        confidence: match software.confidence {
            Confidence::Unknown => 0,
            Confidence::Stated => 1,
            Confidence::Inferred => 2,
        },
        ja4: software.ja4.as_ref().map(Ja4::to_string).unwrap_or_default(),
        library: software.library.clone(),
        contradicted: software.is_contradicted,
        lacks: software.lacks.bits(),
    }
}

pub(super) fn software_from_wire(software: wire::Software) -> Result<ClientSoftware, BadValue> {
    let is_named = !software.name.is_empty();
    Ok(ClientSoftware {
        name: text(software.name, MAX_SOFTWARE_BYTES)?,
        version: text(software.version, MAX_SOFTWARE_BYTES)?,
        system: text(software.system, MAX_SOFTWARE_BYTES)?,
        source: match software.source {
            0 if is_named => SoftwareSource::Ja4,
            0 => SoftwareSource::None,
            1 => SoftwareSource::Asked,
            2 => SoftwareSource::Caps,
            _ => return Err(BadValue),
        },
        confidence: match software.confidence {
            0 => Confidence::Unknown,
            1 => Confidence::Stated,
            2 => Confidence::Inferred,
            _ => return Err(BadValue),
        },
        ja4: Ja4::parse(&software.ja4),
        library: text(software.library, MAX_SOFTWARE_BYTES)?,
        is_contradicted: software.contradicted,
        lacks: Features::from_bits(software.lacks),
    })
}

pub(super) fn fin_to_wire(fin: &Fin, number: u64, sm_in: u32) -> wire::Fin {
    wire::Fin { number, sm_in, reason: reason_code(fin.reason), text: clip(&fin.text).to_owned() }
}

pub(super) fn fin_from_wire(fin: wire::Fin) -> Result<Fin, BadValue> {
    Ok(Fin { reason: reason_from_code(fin.reason), text: text(fin.text, MAX_TEXT_BYTES)? })
}

pub(super) fn refusal_code(code: RefusalCode) -> u32 {
    match code {
        RefusalCode::Busy => 1,
        RefusalCode::NoQueue => 2,
        RefusalCode::BadLink => 3,
        RefusalCode::Policy => 4,
        RefusalCode::Drain => 5,
        RefusalCode::UnknownSession => 6,
        RefusalCode::StoreRegressed => 7,
    }
}

/// A code from a newer peer reads as "policy": refused is refused.
pub(super) fn refusal_from_code(code: u32) -> RefusalCode {
    match code {
        1 => RefusalCode::Busy,
        2 => RefusalCode::NoQueue,
        3 => RefusalCode::BadLink,
        5 => RefusalCode::Drain,
        6 => RefusalCode::UnknownSession,
        7 => RefusalCode::StoreRegressed,
        _ => RefusalCode::Policy,
    }
}

pub(super) fn reset_code(code: ResetCode) -> u32 {
    match code {
        ResetCode::Moved => 1,
        ResetCode::Protocol => 2,
        ResetCode::Slow => 3,
        ResetCode::Cancelled => 4,
        ResetCode::Unknown => 5,
        ResetCode::StoreRegressed => 6,
    }
}

pub(super) fn reset_from_code(code: u32) -> ResetCode {
    match code {
        1 => ResetCode::Moved,
        2 => ResetCode::Protocol,
        3 => ResetCode::Slow,
        4 => ResetCode::Cancelled,
        6 => ResetCode::StoreRegressed,
        _ => ResetCode::Unknown,
    }
}

fn reason_code(reason: CloseReason) -> u32 {
    match reason {
        CloseReason::CustomerLeft => 1,
        CloseReason::CustomerLost => 2,
        CloseReason::AgentDone => 3,
        CloseReason::Shutdown => 4,
        CloseReason::DetachExpired => 5,
        CloseReason::StoreRegressed => 6,
        CloseReason::Fault => 7,
    }
}

fn reason_from_code(code: u32) -> CloseReason {
    match code {
        1 => CloseReason::CustomerLeft,
        2 => CloseReason::CustomerLost,
        3 => CloseReason::AgentDone,
        4 => CloseReason::Shutdown,
        5 => CloseReason::DetachExpired,
        6 => CloseReason::StoreRegressed,
        _ => CloseReason::Fault,
    }
}

/// The longest head of `text` that the peer takes.
pub(super) fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES)).unwrap_or(text)
}

pub(super) fn text(text: String, max: usize) -> Result<String, BadValue> {
    if text.len() <= max && is_clean_text(&text) { Ok(text) } else { Err(BadValue) }
}

fn name(value: String) -> Result<String, BadValue> {
    text(value, MAX_NAME_BYTES)
}

fn address(value: &str) -> Result<SocketAddr, BadValue> {
    if value.len() > MAX_NAME_BYTES {
        return Err(BadValue);
    }
    value.parse().map_err(|_| BadValue)
}

pub(super) fn sixteen(bytes: &[u8]) -> Result<[u8; 16], BadValue> {
    bytes.try_into().map_err(|_| BadValue)
}
