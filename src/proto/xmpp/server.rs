//! What a server must answer so that ordinary clients are content; one answer a file.
//!
//! [`Answers::handle_iq`] finds whom a request addresses (the domain, the client's own account, a contact), then hands it to the
//! one file that answers its payload. A get or set always gets exactly one reply, from the address that was asked, with
//! its id; what nobody here serves is service-unavailable. The same answers serve customers (a roster of one queue) and agents
//! (the desk and a contact per customer): the [`Site`] says who is there.
//!
//! Left out: resource binding (negotiation's), messages and availability ([`super::im`]), and who may see which contact.

mod address;
mod blocking;
mod carbons;
mod disco;
mod errors;
mod ping;
mod presence;
mod private;
mod roster;
mod session;
mod subscription;
mod vcard;
mod version;

use super::{ns, stanza::Element};

use self::address::Target;
use self::errors::Refusal;

pub use self::address::{bare_of, domain_of, is_same_bare};
pub use self::errors::stanza_error;
pub use self::presence::contact_presence;

/// A contact on the served roster, and an entity whose disco, vCard and presence this listener answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Bare JID.
    pub jid: String,
    /// Name to show.
    pub name: String,
    /// Roster group.
    pub group: String,
}

/// Whom a listener answers for.
#[derive(Clone, Debug)]
pub struct Site {
    /// The served domain.
    pub domain: String,
    /// The client's full JID.
    pub client: String,
    /// The roster.
    pub contacts: Vec<Contact>,
    /// Whether the account is anonymous (disco identity account/anonymous, else account/registered).
    pub anonymous: bool,
}

impl Site {
    /// The contact whose bare JID this is, with or without a resource.
    pub fn contact(&self, jid: &str) -> Option<&Contact> {
        self.contacts.iter().find(|contact| is_same_bare(&contact.jid, jid))
    }
}

/// Per-stream state of the answers (roster asked, contacts blocked).
#[derive(Debug, Default)]
pub struct Answers {
    /// The client asked for its roster (RFC 6121 §2.1.6: an interested resource).
    roster_asked: bool,
    /// The client asked for its block list (XEP-0191 §3.2).
    blocklist_asked: bool,
    /// Bare JIDs of blocked contacts: never more than the site has had.
    blocked: Vec<String>,
    /// Pushes made so far; the next one's id.
    pushes: u64,
}

/// What an incoming iq or presence subscription leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Stanzas to the client, in order.
    pub replies: Vec<Element>,
    /// Blocking (XEP-0191) of a contact: the customer leaves the queue.
    pub blocked: Option<String>,
}

impl Answers {
    /// Answers an `<iq/>`: get/set always gets exactly one reply from the address asked, which pushes may follow; results and
    /// errors get none.
    pub fn handle_iq(&mut self, site: &Site, iq: &Element) -> Outcome {
        let verb = match iq.attribute("type") {
            Some("result" | "error") => return Outcome::default(),
            Some("get") => Some(Verb::Get),
            Some("set") => Some(Verb::Set),
            Some(_) | None => None,
        };
        let mut after = After::default();
        let reply = match read_request(site, iq, verb) {
            Ok(request) => self.answer(&request, &mut after),
            Err(refusal) => Err(refusal),
        };
        let mut replies = vec![write_reply(site, iq, reply)];
        replies.append(&mut after.pushes);
        Outcome { replies, blocked: after.blocked }
    }

    /// Answers presence of type subscribe, subscribed, unsubscribe, unsubscribed, probe to a contact.
    pub fn handle_subscription(&mut self, site: &Site, presence: &Element) -> Outcome {
        Outcome { replies: subscription::answer(self, site, presence), blocked: None }
    }

    /// A roster push (RFC 6121 §2.1.6) that adds or changes `contact`, or removes it; `None` for a client that never asked for its roster.
    pub fn roster_push(&mut self, site: &Site, contact: &Contact, removed: bool, id: &str) -> Option<Element> {
        if removed {
            self.blocked.retain(|jid| !is_same_bare(jid, &contact.jid));
        }
        self.roster_asked.then(|| roster::push(site, contact, removed, id))
    }

    /// Whether the client asked for its roster (pushes make sense only then).
    pub fn is_interested(&self) -> bool {
        self.roster_asked
    }

    /// Finds the file that answers the payload.
    fn answer(&mut self, request: &Request<'_>, after: &mut After) -> Reply {
        match (request.payload.namespace(), request.payload.name()) {
            (ns::ROSTER, "query") => roster::answer(self, request, after),
            (ns::DISCO_INFO, "query") => disco::info(request),
            (ns::DISCO_ITEMS, "query") => disco::items(request),
            (ns::PING, "ping") => ping::answer(request),
            (ns::SESSION, "session") => session::answer(request),
            (ns::CARBONS, "enable" | "disable") => carbons::answer(request),
            (ns::PRIVATE, "query") => private::answer(request),
            (ns::VCARD, "vCard") => vcard::answer(request),
            (ns::VERSION, "query") => version::answer(request),
            (ns::BLOCKING, "blocklist" | "block" | "unblock") => blocking::answer(self, request, after),
            _ => Err(Refusal::UNAVAILABLE),
        }
    }

    /// An id for the next push.
    fn next_push(&mut self) -> String {
        self.pushes += 1;
        format!("push-{}", self.pushes)
    }
}

/// What an iq wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
}

/// A well-formed get or set.
#[derive(Debug)]
struct Request<'a> {
    site: &'a Site,
    verb: Verb,
    target: Target<'a>,
    payload: &'a Element,
}

/// The result's payload if it has one, or the refusal.
type Reply = Result<Option<Element>, Refusal>;

/// What follows the reply.
#[derive(Debug, Default)]
struct After {
    pushes: Vec<Element>,
    blocked: Option<String>,
}

/// Checks an iq's semantics (RFC 6120 §8.2.3) and its address.
fn read_request<'a>(site: &'a Site, iq: &'a Element, verb: Option<Verb>) -> Result<Request<'a>, Refusal> {
    let mut children = iq.elements();
    let (Some(verb), Some(_), Some(payload), None) = (verb, iq.attribute("id"), children.next(), children.next()) else {
        return Err(Refusal::BAD_REQUEST);
    };
    Ok(Request { site, verb, target: Target::of(site, iq.attribute("to"))?, payload })
}

/// Writes the one reply to an iq. Clients drop a reply that comes from another than they asked; a request without
/// an address was to the client's own account, whose replies need none either (RFC 6120 §8.1.2.1).
fn write_reply(site: &Site, iq: &Element, reply: Reply) -> Element {
    let mut stanza = Element::new("iq", ns::CLIENT).with_attribute("to", site.client.as_str());
    if let Some(asked) = iq.attribute("to") {
        stanza.set_attribute("from", asked);
    }
    if let Some(id) = iq.attribute("id") {
        stanza.set_attribute("id", id);
    }
    match reply {
        Ok(payload) => {
            stanza.set_attribute("type", "result");
            if let Some(payload) = payload {
                stanza.push_child(payload);
            }
        }
        Err(refusal) => {
            stanza.set_attribute("type", "error");
            stanza.push_child(refusal.to_element());
        }
    }
    stanza
}

#[cfg(test)]
pub(super) mod quoted;
#[cfg(test)]
pub(super) mod tests;
