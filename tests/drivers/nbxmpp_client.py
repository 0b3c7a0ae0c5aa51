"""Drives nbxmpp (Gajim's library, on GLib's TLS) as far as record.py asks: it logs in with PLAIN, shows its presence, answers what its
library answers by itself. Run with the system's Python, which has GLib's bindings; Debian: python3-nbxmpp, glib-networking."""

import sys

from gi.repository import Gio, GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.protocol import Presence

from lines import Commands, emit


class Driver:
    def __init__(self):
        self.client = None
        self.commands = Commands()

    def connect(self, host, port, tls, domain, jid, password, ca_file):
        kind = ConnectionType.DIRECT_TLS if tls == "direct" else ConnectionType.START_TLS
        self.client = Client(log_context="driver")
        self.client.set_domain(domain)
        self.client.set_username(jid.split("@")[0])
        self.client.set_password(password)
        self.client.set_custom_host(f"{host}:{port}", ConnectionProtocol.TCP, kind)
        self.client.set_accepted_certificates([Gio.TlsCertificate.new_from_file(ca_file)])
        self.client.set_ignore_tls_errors(True)
        self.client.subscribe("login-successful", lambda *_: emit("connected", jid=str(self.client.get_bound_jid())))
        self.client.subscribe("connected", lambda *_: self.client.send_stanza(Presence()))
        self.client.connect()

    def look(self):
        for command in self.commands.take(0):
            do = command.pop("do")
            if do == "quit":
                emit("closed")
                loop.quit()
                return False
            getattr(self, do)(**command)
        return True


loop = GLib.MainLoop()
driver = Driver()
emit("ready", client="nbxmpp")
GLib.timeout_add(50, driver.look)
loop.run()
