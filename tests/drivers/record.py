"""Records how a real client shows what it is: its TLS hello, its capabilities, its answer to a version request.

    target/drivers/venv/bin/python tests/drivers/record.py NAME > tests/fixtures/clients/NAME.json

NAME is `slixmpp_client`, `profanity`, `finch`, `xmppjs` or `nbxmpp_client` (see there what it needs): the client is run by its driver of that name against a small server in
here, once over direct TLS and once after STARTTLS, and asked as a relay asks. The server lets everybody in and understands no more
than a login; it is no Outgate, so that a fixture is no proof of Outgate by Outgate. Take a fixture anew when tests/setup brings
another version of a client, and the rows of config/clients.toml that it stands for with it.
"""

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from xml.sax.saxutils import escape, quoteattr

HERE = os.path.dirname(os.path.abspath(__file__))
DOMAIN = "chat.example"
QUEUE = f"hello@{DOMAIN}"
HEADER = (
    f"<?xml version='1.0'?><stream:stream from='{DOMAIN}' id='s1' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
FEATURES = {
    "open": "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
    "secure": "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>",
    "in": "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
}
VERSION = "jabber:iq:version"
DISCO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"
CAPS = "http://jabber.org/protocol/caps"
# How long the whole of it may take, and how long an answer.
PATIENCE = 30
ANSWER = 4


def written(element, outer="jabber:client"):
    """An element as text, with a namespace where it changes."""
    space, _, name = element.tag.rpartition("}")
    space = space.lstrip("{")
    text = f"<{name}" + (f" xmlns={quoteattr(space)}" if space != outer else "")
    for key, value in element.attrib.items():
        key = "xml:" + key.rsplit("}", 1)[-1] if key.startswith("{") else key
        text += f" {key}={quoteattr(value)}"
    inside = escape(element.text or "") + "".join(written(child, space) for child in element)
    return f"{text}>{inside}</{name}>" if inside else f"{text}/>"


class Line:
    """The connection: bytes, TLS once it is up, and the stanzas that come over it."""

    def __init__(self, plug):
        self.plug = plug
        self.tls = None
        self.hello = b""
        self.parser = None
        self.depth = 0

    def start_tls(self, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                answer = self.outgoing.read()
                self.plug.sendall(answer)
                got = self.plug.recv(65536)
                assert got, "the client left during the handshake"
                # Its first flight ends where our first begins.
                if not answer and not self.tls:
                    self.hello += got
                else:
                    self.tls = tls
                self.incoming.write(got)
        self.plug.sendall(self.outgoing.read())
        self.tls = tls

    def send(self, text):
        if not self.tls:
            self.plug.sendall(text.encode())
            return
        self.tls.write(text.encode())
        self.plug.sendall(self.outgoing.read())

    def take(self):
        """Some bytes; none at the end."""
        while True:
            if self.tls:
                try:
                    return self.tls.read(65536)
                except ssl.SSLWantReadError:
                    self.plug.sendall(self.outgoing.read())
            got = self.plug.recv(65536)
            if not self.tls or not got:
                return got
            self.incoming.write(got)

    def restart(self):
        self.parser = xml.XMLPullParser(("start", "end"))
        self.depth = 0

    def elements(self):
        """What the client says: None for a stream's beginning, then each element."""
        while True:
            try:
                got = self.take()
            except TimeoutError:
                yield "silence"
                continue
            if not got:
                return
            self.parser.feed(got)
            for event, element in self.parser.read_events():
                self.depth += 1 if event == "start" else -1
                if event == "start" and self.depth == 1:
                    yield None
                if event == "end" and self.depth == 1:
                    yield element


class Recorder:
    def __init__(self, line, context):
        self.line = line
        self.context = context
        self.stage = "open"
        self.seen = {"presence": None, "disco": None, "version": None}
        self.open = {}
        self.client = None
        self.caps = None
        self.asked = None
        self.bound = None

    def run(self):
        if self.line.plug.recv(1, socket.MSG_PEEK) == b"\x16":
            self.line.start_tls(self.context)
            self.stage = "secure"
        self.line.restart()
        for element in self.line.elements():
            if element is None:
                self.line.send(HEADER + f"<stream:features>{FEATURES[self.stage]}</stream:features>")
            elif element != "silence":
                self.hear(element)
            if self.stage == "bound":
                self.ask()
            if self.asked and (time.monotonic() > self.asked + ANSWER or (self.seen["disco"] and not self.open)):
                self.line.send("</stream:stream>")
                return

    def hear(self, element):
        name = element.tag.rsplit("}", 1)[-1]
        if name == "starttls":
            self.line.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            self.line.start_tls(self.context)
            self.line.restart()
            self.stage = "secure"
        elif name == "auth":
            self.line.send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
            self.line.restart()
            self.stage = "in"
        elif name == "presence" and element.get("to") is None:
            caps = element.find(f"{{{CAPS}}}c")
            # slixmpp says its first without capabilities.
            if self.seen["presence"] is None or (caps is not None and CAPS not in self.seen["presence"]):
                self.seen["presence"] = written(element)
                self.caps = caps
        elif name == "iq":
            self.iq(element)

    def iq(self, iq):
        kind, id, payload = iq.get("type"), iq.get("id"), next(iter(iq), None)
        if kind in ("result", "error"):
            what = self.open.pop(id, None)
            if what:
                self.seen[what] = written(iq)
            return
        space = payload.tag.rpartition("}")[0].lstrip("{")
        # libpurple waits for an answer from whom it has asked.
        head = f"id='{id}'" + (f" from='{iq.get('to')}'" if iq.get("to") else "")
        answer = ""
        if space.endswith("xmpp-bind"):
            self.client = f"guest@{DOMAIN}/" + (payload.findtext("{*}resource") or "r")
            self.stage, self.bound = "bound", time.monotonic()
            answer = f"<bind xmlns='{space}'><jid>{self.client}</jid></bind>"
        elif space == "jabber:iq:roster":
            answer = f"<query xmlns='{space}'><item jid='{QUEUE}' subscription='both' name='hello'/></query>"
        elif space == ITEMS:
            answer = f"<query xmlns='{space}'/>"
        elif space == DISCO:
            answer = f"<query xmlns='{space}'><identity category='server' type='im'/><feature var='{DISCO}'/></query>"
        elif not (space.endswith("xmpp-session") or space == "urn:xmpp:ping"):
            self.line.send(f"<iq type='error' {head}><error type='cancel'><service-unavailable "
                           "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
            return
        self.line.send(f"<iq type='result' {head}>{answer}</iq>")

    def ask(self):
        """Asks after the first presence, or a second after bind where there is none; for capabilities when they are seen."""
        if not self.asked and (self.seen["presence"] or time.monotonic() > self.bound + 1):
            self.asked = time.monotonic()
            self.question("version", f"<query xmlns='{VERSION}'/>")
        if self.asked and self.caps is not None:
            node = f"{self.caps.get('node')}#{self.caps.get('ver')}"
            self.caps = None
            self.question("disco", f"<query xmlns='{DISCO}' node={quoteattr(node)}/>")

    def question(self, what, payload):
        self.open[f"q-{what}"] = what
        self.line.send(f"<iq type='get' id='q-{what}' from='{QUEUE}' to='{self.client}'>{payload}</iq>")


def certificate(folder):
    """A CA and a certificate of it for the domain."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA", "-days", "2")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "csr.pem", "-subj", f"/CN={DOMAIN}")
    with open(os.path.join(folder, "ext"), "w", encoding="ascii") as ext:
        ext.write(f"subjectAltName=DNS:{DOMAIN}\n")
    openssl("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "cert.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    context.set_alpn_protocols(["xmpp-client"])
    return os.path.join(folder, "ca.pem"), context


def driver(name, folder, ca_file):
    script = os.path.join(HERE, name + (".mjs" if name == "xmppjs" else ".py"))
    home = os.path.join(HERE, "../../target/drivers")
    program = ["node"] if name == "xmppjs" else ["/usr/bin/python3"] if name == "nbxmpp_client" else [os.path.join(home, "venv/bin/python")]
    environment = dict(os.environ, NODE_EXTRA_CA_CERTS=ca_file, XMPPJS_HOME=os.path.join(home, "npm"))
    return subprocess.Popen([*program, script, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)


def record(name, tls):
    with tempfile.TemporaryDirectory(prefix="record") as folder, tempfile.TemporaryDirectory(prefix="im") as own:
        ca_file, context = certificate(folder)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)
        client = driver(name, own, ca_file)
        ready = json.loads(client.stdout.readline())
        login = {"do": "connect", "host": "127.0.0.1", "port": listener.getsockname()[1], "tls": tls, "domain": DOMAIN,
                 "jid": f"guest@{DOMAIN}", "password": "link", "ca_file": ca_file}
        print(json.dumps(login), file=client.stdin, flush=True)
        try:
            plug, _ = listener.accept()
            plug.settimeout(1)
            recorder = Recorder(Line(plug), context)
            recorder.run()
        finally:
            client.stdin.close()
            client.wait(20)
        return ready["client"], recorder


def main():
    name = sys.argv[1]
    client, direct = record(name, "direct")
    _, starttls = record(name, "starttls")
    hellos = {"direct": direct.line.hello.hex(), "starttls": starttls.line.hello.hex()}
    json.dump({"driver": name, "client": client, "hellos": hellos, **direct.seen}, sys.stdout, indent=1)
    print()


main()
