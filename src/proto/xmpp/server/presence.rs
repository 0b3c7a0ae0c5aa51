//! How a contact shows itself.

use super::super::{ns, stanza::Element};
use crate::im::Availability;

/// The presence of a contact (RFC 6121 §4.7), with words to its state and the name to show (XEP-0172) where given.
pub fn contact_presence(from: &str, to: &str, show: Availability, status: Option<&str>, nick: Option<&str>) -> Element {
    let mut presence = Element::new("presence", ns::CLIENT).with_attribute("from", from).with_attribute("to", to);
    let show = match show {
        Availability::Available => None,
        Availability::Chat => Some("chat"),
        Availability::Away => Some("away"),
        Availability::ExtendedAway => Some("xa"),
        Availability::DoNotDisturb => Some("dnd"),
        Availability::Unavailable => {
            presence.set_attribute("type", "unavailable");
            None
        }
    };
    if let Some(show) = show {
        presence.push_child(Element::new("show", ns::CLIENT).with_text(show));
    }
    if let Some(status) = status {
        presence.push_child(Element::new("status", ns::CLIENT).with_text(status));
    }
    if let Some(nick) = nick {
        presence.push_child(Element::new("nick", ns::NICK).with_text(nick));
    }
    presence
}
