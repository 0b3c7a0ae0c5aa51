//! Addresses around a link or a code: the queue's XMPP contact, the page, IRC, and an account as a picture says it.

/// The XMPP address of `queue` at `domain`, as a URI that opens a chat (XEP-0147).
pub fn xmpp_contact(queue: &str, domain: &str) -> String {
    format!("xmpp:{}@{domain}?message", escape(queue))
}

/// The page of a link or a code.
pub fn page(host: &str, secret: &str) -> String {
    format!("https://{host}/l/{secret}")
}

/// The queue as a conversation partner on IRC over TLS; the link or code is the server's password.
pub fn irc(host: &str, queue: &str) -> String {
    format!("ircs://{host}:6697/{},isnick", escape(queue))
}

/// What Conversations, scanning it, makes an account of.
pub fn conversations_account(queue: &str, domain: &str, secret: &str) -> String {
    serde_json::json!({ "protocol": "xmpp", "address": format!("{queue}@{domain}"), "password": secret }).to_string()
}

/// The token in `text`, which is a token or the address of a landing page.
pub fn token_in(text: &str) -> &str {
    let text = text.trim();
    let Some(rest) = text.strip_prefix("https://") else { return text };
    let Some((_host, token)) = rest.split_once("/l/") else { return text };
    token.split(['?', '#']).next().unwrap_or(token)
}

/// Escapes what RFC 3986 §2.3 does not let stand in a URI as it is.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_its_token_back() {
        let page = "https://chat.example.com/l/a.b_-.c";
        assert_eq!(token_in(&format!(" {page}?utm=1#x\n")), "a.b_-.c");
        assert_eq!(token_in("a.b.c\n"), "a.b.c");
        assert_eq!(token_in("https://chat.example.com/x"), "https://chat.example.com/x");
    }

    #[test]
    fn the_other_ways_in() {
        assert_eq!(token_in(&page("chat.example.com", "a.b_-.c")), "a.b_-.c");
        assert_eq!(irc("chat.example.com", "a b"), "ircs://chat.example.com:6697/a%20b,isnick");
        let account = conversations_account("support", "chat.example.com", "a.b.c");
        assert_eq!(account, r#"{"address":"support@chat.example.com","password":"a.b.c","protocol":"xmpp"}"#);
    }

    #[test]
    fn a_contact_escapes_what_a_uri_cannot_hold() {
        assert_eq!(xmpp_contact("support", "chat.example.com"), "xmpp:support@chat.example.com?message");
        assert_eq!(xmpp_contact("a b?c", "d.example"), "xmpp:a%20b%3Fc@d.example?message");
    }
}
