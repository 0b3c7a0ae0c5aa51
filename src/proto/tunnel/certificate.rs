//! CERT_REQ, CERT and TRUST: how a relay, which can dial nobody, gets new certificates and learns of revocations.
//!
//! ```text
//! relay                    connector               issuing CA
//!   CERT_REQ        ──▶    forwards         ──▶    checks the signature by the relay's present key
//!                   ◀──    CERT             ◀──    issues for the names in the present certificate
//!                   ◀──    TRUST                   (CAs and revocation lists, after ATTACHED and when they change)
//! ```
//! All three are control frames of at most 16 KiB and may be ignored by who does not know them. A revocation list that is longer
//! goes in parts. One request is pending at a time. Nothing here is believed: the CA checks the request, the relay checks what it gets against its own key and its own CAs.

use bytes::Bytes;
use prost::Message;

use super::frame::{Frame, IGNORABLE, MORE};
use super::handshake::Refusal;
use super::open::{MAX_TEXT_BYTES, clip, text};
use super::wire::{self, kind};

mod parts;

pub(super) use self::parts::{ListIntake, LongLists};

/// Largest body of one of these frames.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Largest revocation list: some 25,000 entries.
pub const MAX_LIST_BYTES: usize = 1 << 20;

/// News that may wait for the shell.
pub(super) const MAX_NEWS: usize = 16;

/// What a relay asks of the issuing CA.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Names the request; the answer repeats it.
    pub id: u64,
    /// PKCS#10, DER. The CA takes nothing but the key from it.
    pub csr: Bytes,
    /// The relay's present certificate, DER.
    pub certificate: Bytes,
    /// Over [`signed_text`] of the CSR, by the present certificate's key (ECDSA P-256 with SHA-256, ASN.1).
    pub signature: Bytes,
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateRequest {{ id: {}, csr: {} bytes }}", self.id, self.csr.len())
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateAnswer {
    /// The new certificate first, then what chains it to its CA; DER.
    Issued(Vec<Bytes>),
    /// A sentence: who refused, and why.
    Refused(String),
}

/// Whom to trust and whom no longer, as the issuing CA tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// CA certificates, DER. A new one is believed where one of `links` shows that an old one vouches for it.
    pub authorities: Vec<Bytes>,
    /// Certificates for the keys of new CAs, issued by old ones (RFC 4210 §4.4, "new with old"); DER.
    pub links: Vec<Bytes>,
    /// Revocation lists, DER.
    pub revocations: Vec<Bytes>,
}

/// What a connector told its relay about certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateNews {
    /// The answer to the request that is pending.
    Answer(CertificateAnswer),
    /// CAs and revocation lists.
    Trust(Trust),
}

/// What the present key signs, so that a request can be made by its holder alone and means nothing elsewhere.
pub fn signed_text(csr: &[u8]) -> Vec<u8> {
    [b"outgate/1 CERT_REQ\0".as_slice(), csr].concat()
}

#[derive(Clone, PartialEq, Message)]
struct WireRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    csr: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    certificate: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    signature: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WireAnswer {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    chain: Vec<Bytes>,
    /// Where `chain` is empty.
    #[prost(string, tag = "3")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireTrust {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    authorities: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    links: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    revocations: Vec<Bytes>,
    /// Of the list that `part` belongs to; 0 where the frame is whole.
    #[prost(uint32, tag = "4")]
    length: u32,
    #[prost(uint32, tag = "5")]
    offset: u32,
    #[prost(bytes = "bytes", tag = "6")]
    part: Bytes,
}

/// The frame for a request; `None` where it is too large.
pub(super) fn request_frame(request: &CertificateRequest) -> Option<Bytes> {
    let CertificateRequest { id, csr, certificate, signature } = request.clone();
    bounded(kind::CERT_REQ, &WireRequest { id, csr, certificate, signature })
}

/// The frame for an answer; one that is too large is told as a refusal.
pub(super) fn answer_frame(id: u64, answer: &CertificateAnswer) -> Bytes {
    let issued = match answer {
        CertificateAnswer::Issued(chain) => bounded(kind::CERT, &WireAnswer { id, chain: chain.clone(), text: String::new() }),
        CertificateAnswer::Refused(_) => None,
    };
    let text = match answer {
        CertificateAnswer::Issued(_) => "the certificate's chain is too long for the tunnel",
        CertificateAnswer::Refused(text) => clip(text),
    };
    let refused = || wire::encoded(kind::CERT, IGNORABLE, 0, &WireAnswer { id, chain: Vec::new(), text: text.to_owned() });
    issued.unwrap_or_else(refused)
}

/// What a TRUST frame begins with: all but the lists.
fn without_lists(trust: &Trust) -> WireTrust {
    WireTrust { authorities: trust.authorities.clone(), links: trust.links.clone(), ..WireTrust::default() }
}

pub(super) fn read_request(frame: &Frame) -> Result<CertificateRequest, Refusal> {
    let WireRequest { id, csr, certificate, signature } = read(frame)?;
    Ok(CertificateRequest { id, csr, certificate, signature })
}

pub(super) fn read_answer(frame: &Frame) -> Result<(u64, CertificateAnswer), Refusal> {
    let answer: WireAnswer = read(frame)?;
    if answer.chain.is_empty() {
        let text = text(answer.text, MAX_TEXT_BYTES).map_err(|_| Refusal("malformed"))?;
        return Ok((answer.id, CertificateAnswer::Refused(text)));
    }
    Ok((answer.id, CertificateAnswer::Issued(answer.chain)))
}

/// What a TRUST frame tells; `None` for a part of a list that is not whole yet.
pub(super) fn read_trust(frame: &Frame, intake: &mut ListIntake) -> Result<Option<Trust>, Refusal> {
    let told: WireTrust = read(frame)?;
    if told.length != 0 {
        let list = intake.take(&told, frame.flags & MORE != 0)?;
        return Ok(list.map(|list| Trust { revocations: vec![list], ..Trust::default() }));
    }
    Ok(Some(Trust { authorities: told.authorities, links: told.links, revocations: told.revocations }))
}

fn bounded<M: Message>(kind: u8, message: &M) -> Option<Bytes> {
    (message.encoded_len() <= MAX_CERTIFICATE_BYTES).then(|| wire::encoded(kind, IGNORABLE, 0, message))
}

fn read<M: Message + Default>(frame: &Frame) -> Result<M, Refusal> {
    if frame.body.len() > MAX_CERTIFICATE_BYTES {
        return Err(Refusal("too_large"));
    }
    wire::body(frame).map_err(|_| Refusal("malformed"))
}

#[cfg(test)]
mod tests;
