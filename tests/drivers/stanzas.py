"""What a client's debug log of raw stanzas tells, for the drivers of programs that only have a screen."""

import xml.etree.ElementTree as xml

from lines import emit


class Stanzas:
    """Reports received stanzas and remembers the ids of messages until the client has shown them."""

    def __init__(self):
        self.unshown = []

    def received(self, stanza):
        """Reports one stanza, an Element."""
        name = stanza.tag.rsplit("}", 1)[-1]
        if name == "message":
            self.message(stanza)
        elif name == "presence":
            show = stanza.findtext("{*}show") or stanza.get("type") or "available"
            emit("presence", **{"from": stanza.get("from"), "show": show})
        elif name in ("a", "resumed"):
            emit(name, h=int(stanza.get("h", "-1")))
        elif name == "failure" and "sasl" in stanza.tag:
            conditions = [child.tag.rsplit("}", 1)[-1] for child in stanza]
            condition = next((c for c in conditions if c != "text"), None)
            emit("auth_failed", condition=condition, text=stanza.findtext("{*}text"))
        elif name == "iq":
            bound = stanza.findtext("{*}bind/{*}jid")
            if bound and stanza.get("type") == "result":
                emit("connected", jid=bound)

    def message(self, stanza):
        body = stanza.findtext("{*}body")
        if body is not None:
            self.unshown.append((stanza.get("from", "").split("/")[0], body, stanza.get("id")))

    def shown(self, contact, body):
        """Reports a message that the client has shown its user, with the id that it came with."""
        index = next((i for i, (who, text, _) in enumerate(self.unshown) if who == contact and text.strip() == body.strip()), None)
        identity = None if index is None else self.unshown.pop(index)[2]
        emit("message", **{"from": contact, "body": body, "id": identity})


class Stream:
    """A raw XMPP stream in pieces; yields each whole stanza. A new XML declaration or stream header starts anew."""

    def __init__(self):
        self.restart()

    def restart(self):
        self.parser = xml.XMLPullParser(("start", "end"))
        self.depth = 0

    def feed(self, text):
        for header in ("<?xml", "<stream:stream"):
            if text.lstrip().startswith(header):
                self.restart()
                break
        self.parser.feed(text)
        for event, element in self.parser.read_events():
            self.depth += 1 if event == "start" else -1
            if event == "end" and self.depth == 1:
                yield element
