//! SOCKS 5 (RFC 1928) as a client that asks for one connection, with user and password (RFC 1929) where the proxy wants them.

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::http_connect::ProxyCredentials;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const SUBNEGOTIATION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Why a proxy does not let us through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocksFault {
    /// The host or port cannot be asked for.
    #[error("the relay's address cannot be asked for through SOCKS: a name has at most 255 bytes")]
    Destination,
    /// It speaks something else.
    #[error("the proxy's answer is no SOCKS 5")]
    NotSocks,
    /// It wants credentials and none were shown, or of another kind.
    #[error("the proxy asks for credentials: name a file with USER:PASSWORD as `proxy.credentials_file`")]
    NoCredentials,
    /// It does not take ours.
    #[error("the proxy does not take these credentials: correct `proxy.credentials_file`")]
    WrongCredentials,
    /// Reply 2.
    #[error("the proxy forbids the way to the relay: allow its address and port at the proxy")]
    Forbidden,
    /// Replies 1 and 3 to 6.
    #[error("the proxy cannot reach the relay (SOCKS reply {0})")]
    Unreachable(u8),
    /// Any other reply.
    #[error("the proxy refused (SOCKS reply {0})")]
    Refused(u8),
    /// Bytes came behind the last reply, before anything was said that they could answer.
    #[error("the proxy sent bytes of its own into the tunnel")]
    Chatter,
}

impl SocksFault {
    /// Whether only an admin can mend it: trying again soon is of no use.
    pub fn is_configuration(self) -> bool {
        matches!(self, Self::NoCredentials | Self::WrongCredentials | Self::Destination)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Method,
    Authentication,
    Reply,
    Open,
}

/// The client's side of one negotiation.
pub struct Socks5 {
    step: Step,
    destination: Vec<u8>,
    credentials: Option<ProxyCredentials>,
    received: Vec<u8>,
    to_send: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Socks5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks5").field("step", &self.step).finish_non_exhaustive()
    }
}

impl Socks5 {
    /// Asks for a connection to `host` and `port`; the proxy resolves names.
    ///
    /// # Errors
    /// The name is empty or too long.
    pub fn new(host: &str, port: u16, credentials: Option<ProxyCredentials>) -> Result<Self, SocksFault> {
        let mut destination = vec![VERSION, CONNECT, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                destination.push(IPV4);
                destination.extend_from_slice(&address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                destination.push(IPV6);
                destination.extend_from_slice(&address.octets());
            }
            Err(_) => {
                let length = u8::try_from(host.len()).ok().filter(|length| *length > 0).ok_or(SocksFault::Destination)?;
                destination.extend_from_slice(&[NAME, length]);
                destination.extend_from_slice(host.as_bytes());
            }
        }
        destination.extend_from_slice(&port.to_be_bytes());
        let methods: &[u8] =
            if credentials.is_some() { &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD] } else { &[VERSION, 1, NO_AUTHENTICATION] };
        Ok(Self { step: Step::Method, destination, credentials, received: Vec::new(), to_send: Zeroizing::new(methods.to_vec()) })
    }

    /// What is to be sent now; empty where the proxy has to speak.
    pub fn poll_transmit(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.to_send)
    }

    /// Takes what came; true when the way is open.
    ///
    /// # Errors
    /// It is not, and why.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<bool, SocksFault> {
        self.received.extend_from_slice(bytes);
        // A reply has at most 262 bytes; whatever is beyond it ends the negotiation.
        loop {
            let taken = match self.step {
                Step::Method => self.on_method()?,
                Step::Authentication => self.on_authentication()?,
                Step::Reply => self.on_reply()?,
                Step::Open if self.received.is_empty() => return Ok(true),
                Step::Open => return Err(SocksFault::Chatter),
            };
            if taken == 0 {
                return Ok(false);
            }
            self.received.drain(..taken);
        }
    }

    fn on_method(&mut self) -> Result<usize, SocksFault> {
        self.is_version(VERSION)?;
        let [_, method, ..] = self.received[..] else { return Ok(0) };
        match (method, &self.credentials) {
            (NO_AUTHENTICATION, _) => self.ask(),
            (USER_AND_PASSWORD, Some(credentials)) => {
                // Both parts have at most 255 bytes (ProxyCredentials::parse).
                let length = |part: &str| u8::try_from(part.len()).unwrap_or(u8::MAX);
                let mut message = Zeroizing::new(vec![SUBNEGOTIATION, length(&credentials.user)]);
                message.extend_from_slice(credentials.user.as_bytes());
                message.push(length(&credentials.password));
                message.extend_from_slice(credentials.password.as_bytes());
                self.to_send = message;
                self.step = Step::Authentication;
            }
            _ => return Err(SocksFault::NoCredentials),
        }
        Ok(2)
    }

    fn on_authentication(&mut self) -> Result<usize, SocksFault> {
        self.is_version(SUBNEGOTIATION)?;
        match self.received[..] {
            [_, 0, ..] => self.ask(),
            [_, _, ..] => return Err(SocksFault::WrongCredentials),
            _ => return Ok(0),
        }
        Ok(2)
    }

    fn on_reply(&mut self) -> Result<usize, SocksFault> {
        self.is_version(VERSION)?;
        let [_, reply, ref rest @ ..] = self.received[..] else { return Ok(0) };
        match reply {
            0 => {}
            2 => return Err(SocksFault::Forbidden),
            1 | 3..=6 => return Err(SocksFault::Unreachable(reply)),
            _ => return Err(SocksFault::Refused(reply)),
        }
        let bound = match rest {
            [_, IPV4, ..] => 4,
            [_, IPV6, ..] => 16,
            [_, NAME, length, ..] => 1 + usize::from(*length),
            [] | [_] | [_, NAME] => return Ok(0),
            [_, _, ..] => return Err(SocksFault::NotSocks),
        };
        let whole = 4 + bound + 2;
        if self.received.len() < whole {
            return Ok(0);
        }
        self.step = Step::Open;
        Ok(whole)
    }

    fn is_version(&self, version: u8) -> Result<(), SocksFault> {
        if self.received.first().is_some_and(|first| *first != version) { Err(SocksFault::NotSocks) } else { Ok(()) }
    }

    fn ask(&mut self) {
        self.to_send = Zeroizing::new(self.destination.clone());
        self.step = Step::Reply;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Option<ProxyCredentials> {
        ProxyCredentials::parse("user:secret").ok()
    }

    fn open(credentials: Option<ProxyCredentials>) -> Socks5 {
        Socks5::new("relay.test", 7443, credentials).unwrap()
    }

    #[test]
    fn a_name_is_asked_for_with_these_bytes() {
        let mut socks = open(None);
        assert_eq!(&socks.poll_transmit()[..], &[5, 1, 0]);
        assert_eq!(socks.handle_bytes(&[5, 0]), Ok(false));
        assert_eq!(&socks.poll_transmit()[..], b"\x05\x01\x00\x03\x0arelay.test\x1d\x13");
        assert_eq!(socks.handle_bytes(&[5, 0, 0, 1, 0, 0, 0, 0, 0]), Ok(false));
        assert_eq!(socks.handle_bytes(&[0]), Ok(true));
    }

    #[test]
    fn addresses_are_asked_for_as_such() {
        for (host, kind, length) in [("192.0.2.1", IPV4, 4), ("2001:db8::1", IPV6, 16)] {
            let socks = Socks5::new(host, 1, None).unwrap();
            assert_eq!((socks.destination[3], socks.destination.len()), (kind, 4 + length + 2));
        }
        assert_eq!(Socks5::new(&"x".repeat(256), 1, None).unwrap_err(), SocksFault::Destination);
        assert_eq!(Socks5::new("", 1, None).unwrap_err(), SocksFault::Destination);
    }

    #[test]
    fn user_and_password_go_only_where_they_are_asked_for() {
        let mut socks = open(credentials());
        assert_eq!(&socks.poll_transmit()[..], &[5, 2, 0, 2]);
        assert_eq!(socks.handle_bytes(&[5, 2]), Ok(false));
        assert_eq!(&socks.poll_transmit()[..], b"\x01\x04user\x06secret");
        assert_eq!(socks.handle_bytes(&[1, 0]), Ok(false));
        assert_eq!(socks.poll_transmit()[3], NAME);

        let mut wrong = open(credentials());
        assert_eq!(wrong.handle_bytes(&[5, 2]), Ok(false));
        assert_eq!(wrong.handle_bytes(&[1, 1]), Err(SocksFault::WrongCredentials));
        assert_eq!(open(None).handle_bytes(&[5, 2]), Err(SocksFault::NoCredentials));
        assert_eq!(open(None).handle_bytes(&[5, 255]), Err(SocksFault::NoCredentials));
        assert!(!format!("{:?}", open(credentials())).contains("secret"));
    }

    #[test]
    fn every_cut_of_the_answers_opens_the_way() {
        let answers = b"\x05\x00\x05\x00\x00\x03\x05proxy\x00\x50";
        for cut in 0..answers.len() {
            let mut socks = open(None);
            assert_eq!(socks.handle_bytes(&answers[..cut]), Ok(false), "{cut}");
            assert_eq!(socks.handle_bytes(&answers[cut..]), Ok(true), "{cut}");
        }
    }

    #[test]
    fn every_refusal_has_its_word() {
        for (reply, fault) in [(2, SocksFault::Forbidden), (4, SocksFault::Unreachable(4)), (7, SocksFault::Refused(7))] {
            assert_eq!(open(None).handle_bytes(&[5, 0, 5, reply]), Err(fault));
        }
        assert_eq!(open(None).handle_bytes(b"HTTP/1.1 400"), Err(SocksFault::NotSocks));
        assert_eq!(open(None).handle_bytes(&[5, 0, 5, 0, 0, 9, 0, 0]), Err(SocksFault::NotSocks));
        assert_eq!(open(None).handle_bytes(&[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 22]), Err(SocksFault::Chatter));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer_and_no_panic(bytes in proptest::collection::vec(0u8..8, 0..300)) {
            let mut socks = open(credentials());
            for part in bytes.chunks(3) {
                if socks.handle_bytes(part) != Ok(false) {
                    break;
                }
            }
        }
    }
}
