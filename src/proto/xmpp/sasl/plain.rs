//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL passwd`.

use super::{SaslCondition, is_acceptable};

/// Reads a PLAIN message for a user of `domain`: user name and password. An authzid must be absent, the user, or his bare JID:
/// nobody acts as someone else.
pub fn parse<'a>(message: &'a [u8], domain: &str) -> Result<(&'a str, &'a str), SaslCondition> {
    let text = std::str::from_utf8(message).map_err(|_| SaslCondition::MalformedRequest)?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(SaslCondition::MalformedRequest);
    };
    if !is_acceptable(user) || !is_acceptable(password) {
        return Err(SaslCondition::MalformedRequest);
    }
    if !may_act_as(authzid, user, domain) {
        return Err(SaslCondition::InvalidAuthzid);
    }
    Ok((user, password))
}

/// Whether `user` at `domain` may ask for `authzid`.
pub(super) fn may_act_as(authzid: &str, user: &str, domain: &str) -> bool {
    authzid.is_empty()
        || authzid == user
        || authzid.rsplit_once('@').is_some_and(|(name, at)| name == user && at.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_act_as_himself_only() {
        for good in ["\0ann\0pw", "ann\0ann\0pw", "ann@x.org\0ann\0pw", "ann@X.ORG\0ann\0pw"] {
            assert_eq!(parse(good.as_bytes(), "x.org"), Ok(("ann", "pw")), "{good:?}");
        }
        for bad in ["bob\0ann\0pw", "ann@y.org\0ann\0pw", "ann@x.org/r\0ann\0pw", "@x.org\0ann\0pw"] {
            assert_eq!(parse(bad.as_bytes(), "x.org"), Err(SaslCondition::InvalidAuthzid), "{bad:?}");
        }
    }

    #[test]
    fn other_shapes_are_malformed() {
        for bad in [&b""[..], b"ann", b"\0ann", b"\0\0pw", b"\0ann\0", b"\0ann\0pw\0", b"\0a\nn\0pw", b"\0ann\0p\x7fw", b"\0ann\0\xff"] {
            assert_eq!(parse(bad, "x.org"), Err(SaslCondition::MalformedRequest), "{bad:?}");
        }
    }
}
