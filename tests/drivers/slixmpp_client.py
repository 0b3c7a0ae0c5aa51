"""Drives slixmpp as customer (PLAIN with a link, or ANONYMOUS) and as agent (SCRAM). Run with the Python of target/drivers/venv.

XEP-0198 is enabled with resumption, XEP-0092 is answered, a lost connection is made again by itself; certificates are checked
against `ca_file` and nothing else. What is to be sent while the connection is down waits here: slixmpp itself would write it
before the stanzas that it repeats after `<resumed/>`, whose order is what `h` counts, and would lose what its loop has not
written yet.
"""

import asyncio
import json
import logging
import ssl
import sys
from xml.etree import ElementTree as ET

import slixmpp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from lines import emit

SHOWN = {"", "error"}


class ErrorsToEvents(logging.Handler):
    """What slixmpp would tell its user on stderr."""

    def emit(self, record):
        emit("error", text=f"{record.name}: {record.getMessage()}")


class Client(slixmpp.ClientXMPP):
    def __init__(self, host, port, tls, domain, jid, password, ca_file):
        super().__init__(jid or domain, password or "")
        self.address = (host, port)
        self.leaving = False
        self.up = False
        self.was_up = False
        self.outbox = []
        self.in_hand = []
        self.enable_direct_tls = tls == "direct"
        self.enable_starttls = tls == "starttls"
        self.enable_plaintext = False
        self.ca_certs = ca_file
        for plugin in ("xep_0030", "xep_0092", "xep_0115", "xep_0198", "xep_0199", "xep_0085", "xep_0184", "xep_0203"):
            self.register_plugin(plugin)
        self.plugin["xep_0092"].software_name = "Slixmpp"
        self.add_event_handler("session_start", self.begun)
        self.add_event_handler("session_resumed", self.resumed)
        self.add_event_handler("message", self.message)
        self.add_event_handler("message_error", self.message_refused)
        self.add_event_handler("presence", self.saw)
        self.add_event_handler("failed_auth", self.refused)
        self.add_event_handler("ssl_invalid_chain", lambda fault: emit("error", text=f"certificate: {fault}"))
        self.add_event_handler("connection_failed", self.unreachable)
        self.add_event_handler("disconnected", self.lost)
        acked = MatchXPath("{urn:xmpp:sm:3}a")
        self.register_handler(Callback("driver saw <a/>", acked, lambda a: emit("a", h=int(a.xml.get("h")))))

    def get_ssl_context(self):
        """The CA of the test is the only one trusted."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def dial(self):
        self.connect(*self.address)

    def begun(self, _):
        self.send_presence()
        self.get_roster()
        emit("connected", jid=self.boundjid.full)
        self.flush()

    def resumed(self, _):
        emit("resumed", h=self.plugin["xep_0198"].last_ack)
        self.flush()

    def say(self, to, body):
        self.outbox.append(self.make_message(mto=to, mbody=body, mtype="chat"))
        if self.up:
            self.flush()

    def flush(self):
        self.up = self.was_up = True
        for stanza in self.in_hand + self.outbox:
            stanza.send()
        self.in_hand.clear()
        self.outbox.clear()

    def send_raw(self, data):
        """What slixmpp's queue has in hand when the connection goes it forgets, unless it has counted it to be repeated."""
        if self.transport:
            super().send_raw(data)
        elif isinstance(data, str) and data.startswith("<message"):
            message = slixmpp.Message(stream=self, xml=ET.fromstring(data))
            counted = {stanza["id"] for _, stanza in self.plugin["xep_0198"].unacked_queue}
            if message["id"] not in counted:
                self.in_hand.append(self.make_message(mto=message["to"], mbody=message.xml.findtext("{*}body"), mtype="chat"))

    def message(self, message):
        if message["type"] != "error":
            emit("message", **{"from": message["from"].full, "body": message["body"], "id": message["id"]})

    def message_refused(self, message):
        error = message["error"]
        emit("error", text=f"message {message['id']}: {error['condition']} {error['text']}")

    def saw(self, presence):
        show = presence["type"]
        emit("presence", **{"from": presence["from"].full, "show": show})
        if show == "error":
            emit("error", text=f"presence from {presence['from']}: {presence['error']['condition']}")

    def refused(self, failure):
        emit("auth_failed", condition=failure["condition"], text=failure["text"])

    def lost(self, _):
        self.up = False
        unwritten = []
        while not self.waiting_queue.empty():
            stanza, use_filters = self.waiting_queue.get_nowait()
            self.waiting_queue.task_done()
            # Without filters it is a repetition, which slixmpp still keeps.
            if use_filters and isinstance(stanza, (slixmpp.Message, slixmpp.Presence, slixmpp.Iq)):
                unwritten.append(stanza)
        self.outbox = unwritten + self.outbox
        emit("closed")
        if not self.leaving and self.was_up:
            self.loop.call_later(0.3, self.dial)

    def unreachable(self, fault):
        """A server that was there before is dialled again and again; slixmpp itself would wait longer each time."""
        if self.leaving or not self.was_up:
            emit("error", text=f"connection: {fault}")
            return
        self.cancel_connection_attempt()
        self.loop.call_later(0.3, self.dial)


async def commands():
    """The lines of stdin, then one `quit`."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)
    yield {"do": "quit"}


async def run():
    client = None
    emit("ready", client=f"Slixmpp {slixmpp.__version__}")
    async for command in commands():
        do = command.pop("do")
        if do == "connect":
            client = Client(**command)
            client.dial()
        elif do == "send":
            client.say(command["to"], command["body"])
        elif do == "presence":
            client.send_presence(pshow=command["show"])
        elif do == "screen":
            emit("screen", text="")
        elif do == "quit":
            if client:
                client.leaving = True
                await client.disconnect(wait=2)
            return


logging.getLogger().addHandler(ErrorsToEvents(logging.WARNING))
asyncio.run(run())
