//! HTTP CONNECT (RFC 9110 §9.3.6) as a client: the request, and the proxy's answer read bit by bit.
//!
//! Only Basic credentials (RFC 7617) are spoken. The proxy's words are not repeated: its status code says enough.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Largest answer up to the end of its header, in bytes; interim answers count too.
pub const MAX_ANSWER: usize = 16 * 1024;

/// User and password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for ProxyCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyCredentials { user: MASKED, password: MASKED }")
    }
}

/// The text of a credentials file is not `USER:PASSWORD` in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one line `USER:PASSWORD`, each of 1 to 255 bytes")]
pub struct NotCredentials;

impl ProxyCredentials {
    /// Reads `USER:PASSWORD`, one line with or without its end.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, NotCredentials> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (user, password) = line.split_once(':').ok_or(NotCredentials)?;
        let fits = |part: &str| (1..=255).contains(&part.len()) && !part.contains(char::is_control);
        if !fits(user) || !fits(password) {
            return Err(NotCredentials);
        }
        Ok(Self { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
    }
}

/// Why a proxy does not let us through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFault {
    /// 407 although credentials were shown; some proxies say 401.
    #[error("the proxy does not take these credentials ({0}): correct `proxy.credentials_file`")]
    WrongCredentials(u16),
    /// 407, and none were shown.
    #[error("the proxy asks for credentials ({0}): name a file with USER:PASSWORD as `proxy.credentials_file`")]
    NoCredentials(u16),
    /// 407, and the proxy offers no Basic.
    #[error("the proxy asks for credentials of another kind than Basic (407): allow Basic, or this host without credentials, at the proxy")]
    OtherScheme,
    /// 403: it does not like the destination.
    #[error("the proxy forbids the way to the relay (403): allow CONNECT to its address and port at the proxy")]
    Forbidden,
    /// 502, 503, 504: it cannot reach the relay.
    #[error("the proxy cannot reach the relay ({0})")]
    Gateway(u16),
    /// Any other status.
    #[error("the proxy answered CONNECT with status {0}")]
    Status(u16),
    /// Not HTTP.
    #[error("the proxy's answer is no HTTP")]
    NotHttp,
    /// No end of the header within [`MAX_ANSWER`].
    #[error("the proxy's answer has more than 16 KiB of header")]
    TooLarge,
    /// Bytes came behind the answer, before anything was said that they could answer.
    #[error("the proxy sent bytes of its own into the tunnel")]
    Chatter,
}

impl ConnectFault {
    /// Whether only an admin can mend it: trying again soon is of no use.
    pub fn is_configuration(self) -> bool {
        matches!(self, Self::WrongCredentials(_) | Self::NoCredentials(_) | Self::OtherScheme)
    }
}

/// The request for a way to `authority`, which is `HOST:PORT`. `None`: it cannot stand in a request.
pub fn request(authority: &str, credentials: Option<&ProxyCredentials>) -> Option<Zeroizing<Vec<u8>>> {
    if authority.is_empty() || !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut request = Zeroizing::new(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes());
    if let Some(credentials) = credentials {
        let pair = Zeroizing::new(format!("{}:{}", credentials.user, *credentials.password));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        request.extend_from_slice(b"Proxy-Authorization: Basic ");
        request.extend_from_slice(encoded.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    Some(request)
}

/// The proxy's answer as far as it has come.
#[derive(Debug)]
pub struct Answer {
    received: Vec<u8>,
    /// Bytes of interim answers already passed over.
    passed: usize,
    showed_credentials: bool,
}

impl Answer {
    /// Waits for an answer to a request with or without credentials.
    pub fn new(showed_credentials: bool) -> Self {
        Self { received: Vec::new(), passed: 0, showed_credentials }
    }

    /// Takes what came; true when the way is open.
    ///
    /// # Errors
    /// It is not, and why.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<bool, ConnectFault> {
        // At most one read beyond the limit is ever held.
        self.received.extend_from_slice(bytes);
        loop {
            let Some(end) = end_of_header(&self.received) else {
                return if self.passed + self.received.len() > MAX_ANSWER { Err(ConnectFault::TooLarge) } else { self.plausible() };
            };
            if self.passed + end > MAX_ANSWER {
                return Err(ConnectFault::TooLarge);
            }
            let header = &self.received[..end];
            let status = status_of(header).ok_or(ConnectFault::NotHttp)?;
            match status {
                100..=199 => {
                    self.received.drain(..end);
                    self.passed += end;
                }
                200..=299 if self.received.len() > end => return Err(ConnectFault::Chatter),
                200..=299 => return Ok(true),
                _ => return Err(self.refusal(status, header)),
            }
        }
    }

    /// Whoever does not even begin like HTTP is not waited for.
    fn plausible(&self) -> Result<bool, ConnectFault> {
        let begin = &self.received[..self.received.len().min(5)];
        if b"HTTP/".starts_with(begin) { Ok(false) } else { Err(ConnectFault::NotHttp) }
    }

    fn refusal(&self, status: u16, header: &[u8]) -> ConnectFault {
        match status {
            407 if !offers_basic(header) => ConnectFault::OtherScheme,
            401 | 407 if self.showed_credentials => ConnectFault::WrongCredentials(status),
            401 | 407 => ConnectFault::NoCredentials(status),
            403 => ConnectFault::Forbidden,
            502..=504 => ConnectFault::Gateway(status),
            _ => ConnectFault::Status(status),
        }
    }
}

/// Where the header ends: behind its first empty line.
fn end_of_header(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        match &bytes[line..at] {
            b"" | b"\r" if line > 0 => return Some(at + 1),
            _ => line = at + 1,
        }
    }
    None
}

/// The status of `HTTP/1.x NNN …`.
fn status_of(header: &[u8]) -> Option<u16> {
    let rest = header.strip_prefix(b"HTTP/1.")?;
    let [_minor, b' ', hundreds, tens, ones, b' ' | b'\r' | b'\n', ..] = rest else { return None };
    let digits = [hundreds, tens, ones];
    let all_digits = digits.iter().all(|digit| digit.is_ascii_digit());
    all_digits.then(|| digits.iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0')))
}

/// Whether a `Proxy-Authenticate` of the answer names Basic; an answer without one is no reason to doubt it.
fn offers_basic(header: &[u8]) -> bool {
    let text = String::from_utf8_lossy(header).to_ascii_lowercase();
    let challenges: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("proxy-authenticate:")).collect();
    challenges.is_empty() || challenges.iter().any(|challenge| challenge.split([' ', ',', '\t']).any(|word| word == "basic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n";

    fn answered(bytes: &[u8]) -> Result<bool, ConnectFault> {
        Answer::new(false).handle_bytes(bytes)
    }

    #[test]
    fn the_request_has_these_bytes() {
        assert_eq!(
            &request("relay.example:7443", None).unwrap()[..],
            b"CONNECT relay.example:7443 HTTP/1.1\r\nHost: relay.example:7443\r\n\r\n"
        );
        let credentials = ProxyCredentials::parse("Aladdin:open sesame\n").unwrap();
        let request = request("[2001:db8::1]:7443", Some(&credentials)).unwrap();
        let text = String::from_utf8_lossy(&request).into_owned();
        assert!(text.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{text}");
        assert!(!format!("{credentials:?}").contains("sesame"));
    }

    #[test]
    fn an_authority_cannot_smuggle_a_header() {
        for authority in ["", "relay:1\r\nX: y", "relay :1", "r\u{e9}lay:1"] {
            assert!(request(authority, None).is_none(), "{authority:?}");
        }
    }

    #[test]
    fn credentials_are_one_line_of_two_parts() {
        assert_eq!(*ProxyCredentials::parse("u:p:q\r\n").unwrap().password, "p:q");
        for wrong in ["", "u", ":p", "u:", "u:p\nx:y\n", "u:\tp"] {
            assert_eq!(ProxyCredentials::parse(wrong), Err(NotCredentials), "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_opens_the_way_however_it_is_cut() {
        for cut in 0..=OK.len() {
            let mut answer = Answer::new(false);
            let first = answer.handle_bytes(&OK[..cut]).unwrap();
            assert_eq!(first, cut == OK.len());
            assert!(first || answer.handle_bytes(&OK[cut..]).unwrap());
        }
        let mut drip = Answer::new(false);
        let opened: Vec<bool> = OK.iter().map(|byte| drip.handle_bytes(&[*byte]).unwrap()).collect();
        assert_eq!(opened.iter().filter(|open| **open).count(), 1);
        assert_eq!(answered(b"HTTP/1.0 200\n\n"), Ok(true));
        assert_eq!(answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), Ok(true));
    }

    #[test]
    fn every_refusal_has_its_word() {
        let basic = b"HTTP/1.1 407 Nope\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        assert_eq!(answered(basic), Err(ConnectFault::NoCredentials(407)));
        assert_eq!(Answer::new(true).handle_bytes(basic), Err(ConnectFault::WrongCredentials(407)));
        let tinyproxy = b"HTTP/1.1 401 Unauthorized\r\nServer: tinyproxy/1.11.1\r\n\r\n";
        assert_eq!(Answer::new(true).handle_bytes(tinyproxy), Err(ConnectFault::WrongCredentials(401)));
        let ntlm = b"HTTP/1.1 407 Nope\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Negotiate\r\n\r\n";
        assert_eq!(answered(ntlm), Err(ConnectFault::OtherScheme));
        assert_eq!(answered(b"HTTP/1.1 403 No\r\n\r\n"), Err(ConnectFault::Forbidden));
        assert_eq!(answered(b"HTTP/1.1 502 No\r\n\r\n<html>"), Err(ConnectFault::Gateway(502)));
        assert_eq!(answered(b"HTTP/1.1 418 Teapot\r\n\r\n"), Err(ConnectFault::Status(418)));
        assert_eq!(answered(b"SSH-2.0-OpenSSH_9.2"), Err(ConnectFault::NotHttp));
        assert_eq!(answered(b"HTTP/1.1 2x0 OK\r\n\r\n"), Err(ConnectFault::NotHttp));
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\n\r\n\x16\x03"), Err(ConnectFault::Chatter));
    }

    #[test]
    fn an_endless_header_is_not_read_to_its_end() {
        let mut answer = Answer::new(false);
        assert_eq!(answer.handle_bytes(b"HTTP/1.1 200 OK\r\n"), Ok(false));
        let line = b"X-Padding: 0123456789012345678901234567890123456789\r\n";
        let fault = (0..10_000).find_map(|_| answer.handle_bytes(line).err());
        assert_eq!(fault, Some(ConnectFault::TooLarge));
        assert!(answer.received.len() <= MAX_ANSWER + line.len());
        let mut interim = Answer::new(false);
        let fault = (0..10_000).find_map(|_| interim.handle_bytes(b"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\n").err());
        assert_eq!(fault, Some(ConnectFault::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer_and_no_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut answer = Answer::new(true);
            for part in bytes.chunks(7) {
                if answer.handle_bytes(part) != Ok(false) {
                    break;
                }
            }
        }
    }
}
