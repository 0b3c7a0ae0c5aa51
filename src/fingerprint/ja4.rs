//! JA4: a name for how a client says hello in TLS, the same for all hellos of one TLS library with one set of options.
//!
//! The method is FoxIO's (<https://github.com/FoxIO-LLC/ja4>), written here from its description. It alone of the JA4+ family is free:
//!
//! > Copyright (c) 2026 FoxIO. All rights reserved. Software: JA4 (TLS client fingerprinting)
//! >
//! > Redistribution and use in source and binary forms, with or without modification, are permitted provided that the following
//! > conditions are met: Redistributions of source code must retain the above copyright notice, this list of conditions and the
//! > following disclaimer. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the
//! > following disclaimer in the documentation and/or other materials provided with the distribution. Neither the name of FoxIO nor
//! > the names of its contributors may be used to endorse or promote products derived from this software without specific prior
//! > written permission.
//! >
//! > THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT
//! > NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL
//! > THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES
//! > (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS
//! > INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE
//! > OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.

use aws_lc_rs::digest::{SHA256, digest};

use super::client_hello::{ClientHello, extension};

/// Characters of a fingerprint: ten, twelve and twelve with two underscores between.
const LENGTH: usize = 36;

/// Where its second part begins.
const HASHES: usize = 11;

/// Characters of a hash.
const HASH: usize = 12;

/// What comes and goes with one client: a hello that resumes a session has a ticket or a key, and is padded otherwise.
const CHANGING: [u16; 3] = [extension::PADDING, extension::SESSION_TICKET, extension::PRE_SHARED_KEY];

/// What a hello came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// TLS over TCP.
    Tcp,
    /// QUIC.
    Quic,
}

/// A fingerprint, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ja4([u8; LENGTH]);

/// Both fingerprints of one hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// JA4 as everybody computes it.
    pub ja4: Ja4,
    /// The same without the extensions that change when a client resumes a session.
    pub stable: Ja4,
}

impl Fingerprint {
    /// Of this hello.
    pub fn of(hello: &ClientHello, over: Over) -> Self {
        Self { ja4: compute(hello, over, &[]), stable: compute(hello, over, &CHANGING) }
    }
}

impl Ja4 {
    /// Reads one that is written in the usual way.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; LENGTH] = text.as_bytes().try_into().ok()?;
        let fits = |(at, byte): (usize, &u8)| match at {
            10 | 23 => *byte == b'_',
            0..10 => byte.is_ascii_alphanumeric(),
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        };
        bytes.iter().enumerate().all(fits).then_some(Self(bytes))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The hashes alone, `8daaf6152771_e5627efa2ab1`: what is before them changes with server name and ALPN.
    pub fn hashes(&self) -> &str {
        self.as_str().get(HASHES..).unwrap_or_default()
    }
}

impl std::fmt::Display for Ja4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn compute(hello: &ClientHello, over: Over, without: &[u16]) -> Ja4 {
    let real = |values: &[u16]| -> Vec<u16> { values.iter().copied().filter(|value| !is_grease(*value)).collect() };
    let mut ciphers = real(&hello.cipher_suites);
    let mut extensions = real(&hello.extensions);
    extensions.retain(|extension| !without.contains(extension));
    let schemes = real(&hello.signature_schemes);
    let head = format!(
        "{}{}{}{:02}{:02}{}",
        match over {
            Over::Tcp => 't',
            Over::Quic => 'q',
        },
        version(hello),
        if hello.has(extension::SERVER_NAME) { 'd' } else { 'i' },
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn(&hello.alpn),
    );
    ciphers.sort_unstable();
    extensions.sort_unstable();
    extensions.retain(|kind| ![extension::SERVER_NAME, extension::ALPN].contains(kind));
    let mut named = hex(&extensions);
    if !named.is_empty() && !schemes.is_empty() {
        named.push('_');
        named.push_str(&hex(&schemes));
    }
    let mut all = [b'0'; LENGTH];
    let text = format!("{head}_{}_{}", hash(&hex(&ciphers)), hash(&named));
    for (place, byte) in all.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    Ja4(all)
}

/// Values that mean nothing and are sent so that servers learn to skip what they do not know (RFC 8701).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn version(hello: &ClientHello) -> &'static str {
    let highest = match &hello.supported_versions {
        Some(versions) => versions.iter().copied().filter(|version| !is_grease(*version)).max(),
        None => Some(hello.legacy_version),
    };
    match highest {
        Some(0x0304) => "13",
        Some(0x0303) => "12",
        Some(0x0302) => "11",
        Some(0x0301) => "10",
        Some(0x0300) => "s3",
        Some(0x0002) => "s2",
        Some(0xfeff) => "d1",
        Some(0xfefd) => "d2",
        Some(0xfefc) => "d3",
        Some(_) | None => "00",
    }
}

/// First and last character of the first protocol; of its hexadecimal form where one of them is neither letter nor digit.
fn alpn(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return "00".to_owned() };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)].iter().collect();
    }
    format!("{:x}{:x}", first >> 4, last & 0x0f)
}

fn hex(values: &[u16]) -> String {
    let words: Vec<String> = values.iter().map(|value| format!("{value:04x}")).collect();
    words.join(",")
}

/// The first twelve characters of SHA-256, or zeros for nothing.
fn hash(list: &str) -> String {
    if list.is_empty() {
        return "0".repeat(HASH);
    }
    digest(&SHA256, list.as_bytes()).as_ref().iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
