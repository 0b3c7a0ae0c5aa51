//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding: both sides, one message at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::plain::may_act_as;
use super::{MAX_ITERATIONS, SaslCondition, ScramKeys, is_acceptable, salted_password, same, sha256, sign};

/// Longest message of either side.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Longest nonce of one side.
const MAX_NONCE_BYTES: usize = 256;

/// What the client says first.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFirst {
    user: String,
    header: String,
    bare: String,
    nonce: String,
}

impl std::fmt::Debug for ClientFirst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientFirst {{ user: {:?}, .. }}", self.user)
    }
}

impl ClientFirst {
    /// Reads `gs2-header n=user,r=nonce[,extensions]`.
    pub fn parse(message: &[u8], domain: &str) -> Result<Self, SaslCondition> {
        let text = text_of(message)?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslCondition::MalformedRequest);
        };
        // "y": the client could bind channels and believes that we cannot, which is so. "p=…": it insists.
        if !matches!(binding, "n" | "y") {
            return Err(SaslCondition::MalformedRequest);
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|field| field.strip_prefix("n=")).and_then(unescape).ok_or(SaslCondition::MalformedRequest)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(SaslCondition::MalformedRequest)?;
        if !is_acceptable(&user) || !is_nonce(nonce) || nonce.len() > MAX_NONCE_BYTES {
            return Err(SaslCondition::MalformedRequest);
        }
        let authzid = match authzid {
            "" => String::new(),
            named => named.strip_prefix("a=").and_then(unescape).ok_or(SaslCondition::MalformedRequest)?,
        };
        if !may_act_as(&authzid, &user, domain) {
            return Err(SaslCondition::InvalidAuthzid);
        }
        let header = text[..text.len() - bare.len()].to_owned();
        Ok(Self { user, header, bare: bare.to_owned(), nonce: nonce.to_owned() })
    }

    /// The user who wants in.
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// The server's side, once the user's keys are known.
#[derive(Debug)]
pub struct ScramServer {
    keys: ScramKeys,
    genuine: bool,
    first: ClientFirst,
    nonce: String,
    server_first: String,
}

impl ScramServer {
    /// Answers the client's first message: the state and the challenge. Keys that are not `genuine` fail at the end, like a
    /// wrong password. `entropy` becomes our part of the nonce.
    pub fn new(first: ClientFirst, keys: ScramKeys, genuine: bool, entropy: [u8; 16]) -> (Self, String) {
        let nonce = format!("{}{}", first.nonce, STANDARD.encode(entropy));
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        (Self { keys, genuine, first, nonce, server_first: server_first.clone() }, server_first)
    }

    /// Judges the client's final message; the server's final message proves that we know the keys too.
    pub fn finish(&self, message: &[u8]) -> Result<String, SaslCondition> {
        let text = text_of(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslCondition::MalformedRequest)?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(SaslCondition::MalformedRequest)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(SaslCondition::MalformedRequest)?;
        let proof: [u8; 32] = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(SaslCondition::MalformedRequest)?;
        if binding != STANDARD.encode(&self.first.header) || nonce != self.nonce {
            return Err(SaslCondition::NotAuthorized);
        }
        let signed = format!("{},{},{without_proof}", self.first.bare, self.server_first);
        let client_key = xor(proof, sign(&self.keys.stored_key, signed.as_bytes()));
        if !same(&sha256(&client_key), &self.keys.stored_key) || !self.genuine {
            return Err(SaslCondition::NotAuthorized);
        }
        Ok(format!("v={}", STANDARD.encode(sign(&self.keys.server_key, signed.as_bytes()))))
    }

    /// The user who wants in.
    pub fn user(&self) -> &str {
        self.first.user()
    }
}

/// The client's side: first message, proof, and the check that the server knows the keys.
pub struct ScramClient {
    password: String,
    bare: String,
    nonce: String,
    server_signature: Option<[u8; 32]>,
}

impl std::fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramClient { .. MASKED }")
    }
}

impl ScramClient {
    /// Begins: the state and the first message.
    pub fn new(user: &str, password: &str, nonce: &str) -> (Self, String) {
        let bare = format!("n={},r={nonce}", user.replace('=', "=3D").replace(',', "=2C"));
        let first = format!("n,,{bare}");
        (Self { password: password.to_owned(), bare, nonce: nonce.to_owned(), server_signature: None }, first)
    }

    /// Answers the challenge; `None` when it is none of ours or asks too much.
    pub fn prove(&mut self, challenge: &[u8]) -> Option<String> {
        let challenge = text_of(challenge).ok()?;
        let mut fields = challenge.split(',');
        let nonce = fields.next()?.strip_prefix("r=").filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len())?;
        let salt = STANDARD.decode(fields.next()?.strip_prefix("s=")?).ok()?;
        let iterations = fields.next()?.strip_prefix("i=")?.parse().ok().filter(|rounds| (1..=MAX_ITERATIONS).contains(rounds))?;
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = sign(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let proof = xor(client_key, sign(&sha256(&client_key), signed.as_bytes()));
        self.server_signature = Some(sign(&sign(&salted, b"Server Key"), signed.as_bytes()));
        Some(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server's final message shows that it knows the keys.
    pub fn is_server_genuine(&self, last: &[u8]) -> bool {
        let signature = last.strip_prefix(b"v=").and_then(|signature| STANDARD.decode(signature).ok());
        matches!((signature, &self.server_signature), (Some(theirs), Some(ours)) if same(&theirs, ours))
    }
}

fn text_of(message: &[u8]) -> Result<&str, SaslCondition> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(SaslCondition::MalformedRequest);
    }
    std::str::from_utf8(message).map_err(|_| SaslCondition::MalformedRequest)
}

fn xor(one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// Undoes `=2C` and `=3D` (RFC 5802 §5.1); any other `=` is an error.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return None,
        };
        out.push(character);
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// RFC 7677 §3.
    fn published() -> ScramServer {
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "x").unwrap();
        let keys = ScramKeys::derive("pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
        let (mut server, _) = ScramServer::new(first, keys, true, [0; 16]);
        server.nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        server.server_first = SERVER_FIRST.to_owned();
        server
    }

    #[test]
    fn both_sides_agree_with_the_published_exchange() {
        let (mut client, first) = ScramClient::new("user", "pencil", CLIENT_NONCE);
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(client.prove(SERVER_FIRST.as_bytes()).as_deref(), Some(CLIENT_FINAL));
        assert_eq!(published().finish(CLIENT_FINAL.as_bytes()).as_deref(), Ok(SERVER_FINAL));
        assert!(client.is_server_genuine(SERVER_FINAL.as_bytes()));
        assert!(!client.is_server_genuine(b"v=AAAA"));
    }

    #[test]
    fn a_wrong_or_changed_proof_does_not_pass() {
        let server = published();
        let wrong = |from: &str, to: &str| server.finish(CLIENT_FINAL.replace(from, to).as_bytes());
        assert_eq!(wrong("p=d", "p=e"), Err(SaslCondition::NotAuthorized));
        assert_eq!(wrong("c=biws", "c=eSws"), Err(SaslCondition::NotAuthorized));
        assert_eq!(wrong("$k0", "$k1"), Err(SaslCondition::NotAuthorized));
        assert_eq!(wrong(",p=", ",x=1,p="), Err(SaslCondition::NotAuthorized));
        assert_eq!(wrong("p=dHzb", "p=dH"), Err(SaslCondition::MalformedRequest));
        assert_eq!(wrong(",p=", ",q="), Err(SaslCondition::MalformedRequest));
        assert_eq!(server.finish(&[b'x'; 5000]), Err(SaslCondition::MalformedRequest));
    }

    #[test]
    fn invented_keys_fail_even_with_their_own_proof() {
        let (mut client, first) = ScramClient::new("a,b=c", "pw", "n0nce");
        let first = ClientFirst::parse(first.as_bytes(), "x").unwrap();
        assert_eq!(first.user(), "a,b=c");
        let (server, challenge) = ScramServer::new(first, ScramKeys::derive("pw", b"s", 2), false, [7; 16]);
        let proof = client.prove(challenge.as_bytes()).unwrap();
        assert_eq!(server.finish(proof.as_bytes()), Err(SaslCondition::NotAuthorized));
    }

    #[test]
    fn first_messages_in_other_shapes_are_refused() {
        for bad in [
            "",
            "n",
            "n,,",
            "p=tls-exporter,,n=u,r=x",
            "x,,n=u,r=x",
            "n,,n=,r=x",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,r=x,n=u",
            "n,,m=1,n=u,r=x",
            "n,,n=u=2,r=x",
            "n,,n=u=2c,r=x",
            "n,b=u,n=u,r=x",
            "n,,n=u\u{1},r=x",
            "n,,n=u,r=\u{e9}",
        ] {
            assert_eq!(ClientFirst::parse(bad.as_bytes(), "x"), Err(SaslCondition::MalformedRequest), "{bad}");
        }
        assert_eq!(ClientFirst::parse(b"n,a=bob,n=u,r=x", "x"), Err(SaslCondition::InvalidAuthzid));
        assert!(ClientFirst::parse(b"y,a=u@x,n=u,r=x,e=1", "x").is_ok());
    }

    #[test]
    fn a_client_refuses_a_server_that_reuses_its_nonce_or_asks_too_much() {
        let (mut client, _) = ScramClient::new("u", "p", "abc");
        for bad in ["r=abc,s=AAAA,i=1", "r=xbcd,s=AAAA,i=1", "r=abcd,s=AAAA,i=0", "r=abcd,s=AAAA,i=1000001", "r=abcd,s=!,i=1", ""] {
            assert_eq!(client.prove(bad.as_bytes()), None, "{bad}");
        }
    }
}
