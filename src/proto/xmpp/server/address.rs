//! Whom a stanza addresses, seen from one client.

use super::{Contact, Site, errors::Refusal};

/// Whom a request addresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The served domain.
    Domain,
    /// The client's account: its bare JID, or no address at all (RFC 6120 §10.3.3).
    Account,
    /// The client itself, by its full JID.
    Client,
    /// A contact, with or without a resource.
    Contact(&'a Contact),
}

impl<'a> Target<'a> {
    /// Finds whom `to` addresses, or says why nobody is there.
    pub(super) fn of(site: &'a Site, to: Option<&str>) -> Result<Self, Refusal> {
        let Some(to) = to else { return Ok(Self::Account) };
        if domain_of(to).is_empty() {
            return Err(Refusal::MALFORMED);
        }
        if is_same_bare(to, &site.client) && resource_of(to).is_some() && resource_of(to) == resource_of(&site.client) {
            return Ok(Self::Client);
        }
        if let Some(contact) = site.contact(to) {
            return Ok(Self::Contact(contact));
        }
        if !is_same_bare(domain_of(to), &site.domain) {
            // RFC 6120 §10.4: a listener has no way to other servers.
            return Err(Refusal::NO_SUCH_SERVER);
        }
        if to.eq_ignore_ascii_case(&site.domain) {
            return Ok(Self::Domain);
        }
        if !to.contains('/') && is_same_bare(to, &site.client) {
            return Ok(Self::Account);
        }
        // RFC 6121 §8.5.1 and §8.5.3.2.3: no such user, or no such resource.
        Err(Refusal::UNAVAILABLE)
    }
}

/// A JID without its resource (RFC 7622 §3.1).
pub fn bare_of(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}

/// A JID's resource (RFC 7622 §3.4), whose case matters.
fn resource_of(jid: &str) -> Option<&str> {
    jid.split_once('/').map(|(_, resource)| resource)
}

/// The domain of a JID (RFC 7622 §3.2).
pub fn domain_of(jid: &str) -> &str {
    let bare = bare_of(jid);
    bare.split_once('@').map_or(bare, |(_, domain)| domain)
}

/// Whether two JIDs differ in their resources at most. Names given out here are ASCII, and clients may change their case.
pub fn is_same_bare(one: &str, other: &str) -> bool {
    bare_of(one).eq_ignore_ascii_case(bare_of(other))
}
