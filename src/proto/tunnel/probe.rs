//! A question to a relay that changes nothing there: HELLO alone. A carrier that says no more is closed, and whatever tunnel stands beside
//! it stands on.

use bytes::Bytes;

use super::Settings;
use super::frame::Frame;
use super::handshake;
use super::wire::{self, kind};

/// What a relay answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would speak with us.
    Welcome {
        /// The version that would be spoken.
        version: u32,
        /// Its software, as it says.
        software: String,
        /// Its clock, in milliseconds since 1970; 0 where it tells none.
        clock_millis: u64,
    },
    /// It would not: the word of its ERROR, or of our own.
    Refused(String),
}

/// The bytes to send on the control lane.
pub fn hello(settings: &Settings) -> Bytes {
    wire::encoded(kind::HELLO, 0, 0, &handshake::hello(settings, &[]))
}

/// Reads an answer; `None` for a frame that is none.
pub fn read(frame: &Frame, settings: &Settings) -> Option<Answer> {
    match frame.kind {
        kind::HELLO_ACK => Some(match handshake::read_hello(frame, settings) {
            Ok(hello) => {
                let version = hello.max_version.min(*settings.versions.end());
                Answer::Welcome { version, software: hello.software, clock_millis: hello.clock_millis }
            }
            Err(handshake::Refusal(code)) => Answer::Refused(code.to_owned()),
        }),
        kind::ERROR => {
            let error: wire::Error = wire::body(frame).unwrap_or_default();
            let is_word = error.code.len() <= 64 && error.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            Some(Answer::Refused(if is_word { error.code } else { "malformed".to_owned() }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn framed(bytes: &Bytes) -> Frame {
        frame::decode(&mut bytes::BytesMut::from(&bytes[..])).unwrap().unwrap()
    }

    #[test]
    fn what_a_relay_answers_is_told() {
        let settings = Settings::default();
        let hello = wire::Hello { software: "outgate 9".to_owned(), clock_millis: 7, ..handshake::hello(&settings, &[]) };
        let welcome = wire::encoded(kind::HELLO_ACK, 0, 0, &hello);
        let version = *settings.versions.end();
        assert_eq!(
            read(&framed(&welcome), &settings),
            Some(Answer::Welcome { version, software: "outgate 9".to_owned(), clock_millis: 7 })
        );
        let newer = wire::Hello { min_version: 900, max_version: 901, ..hello };
        assert_eq!(read(&framed(&wire::encoded(kind::HELLO_ACK, 0, 0, &newer)), &settings), Some(Answer::Refused("version".to_owned())));
        let refusal = |code: &str| wire::encoded(kind::ERROR, 0, 0, &wire::Error { code: code.to_owned() });
        assert_eq!(read(&framed(&refusal("version")), &settings), Some(Answer::Refused("version".to_owned())));
        assert_eq!(read(&framed(&refusal("\u{1b}[2J")), &settings), Some(Answer::Refused("malformed".to_owned())));
        assert_eq!(read(&framed(&super::hello(&settings)), &settings), None);
    }
}
