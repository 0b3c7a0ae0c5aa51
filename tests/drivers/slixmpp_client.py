"""Drives slixmpp as customer (PLAIN with a link, or ANONYMOUS) and as agent (SCRAM). Run with the Python of target/drivers/venv.

XEP-0198 is enabled with resumption, XEP-0092 is answered, a lost connection is made again by itself; certificates are checked
against `ca_file` and nothing else.
"""

import asyncio
import json
import logging
import ssl
import sys

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
        self.enable_direct_tls = tls == "direct"
        self.enable_starttls = tls == "starttls"
        self.enable_plaintext = False
        self.ca_certs = ca_file
        for plugin in ("xep_0030", "xep_0092", "xep_0115", "xep_0198", "xep_0199", "xep_0085", "xep_0184", "xep_0203"):
            self.register_plugin(plugin)
        self.plugin["xep_0092"].software_name = "Slixmpp"
        self.add_event_handler("session_start", self.begun)
        self.add_event_handler("session_resumed", lambda _: emit("resumed", h=self.plugin["xep_0198"].last_ack))
        self.add_event_handler("message", self.message)
        self.add_event_handler("message_error", self.message_refused)
        self.add_event_handler("presence", self.saw)
        self.add_event_handler("failed_auth", self.refused)
        self.add_event_handler("ssl_invalid_chain", lambda fault: emit("error", text=f"certificate: {fault}"))
        self.add_event_handler("connection_failed", lambda fault: emit("error", text=f"connection: {fault}"))
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
        emit("closed")
        if not self.leaving and not self.disconnect_reason_is_final():
            self.loop.call_later(0.3, self.dial)

    def disconnect_reason_is_final(self):
        return not self.authenticated and not self.sessionstarted


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
            client.send_message(mto=command["to"], mbody=command["body"], mtype="chat")
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
