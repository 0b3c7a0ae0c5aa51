"""Drives Finch (Debian's 2.14.12, libpurple) in tmux. Usage: finch.py FOLDER

libpurple trusts the CAs in /etc/ssl/certs and no others, and checks the certificate against the name it connects to. So
Finch runs in a user and mount namespace of its own (`unshare -Urm`, no root needed) in which that folder holds the test's CA
alone and /etc/hosts points the domain at the server, as a company's DNS would. Nothing of its verification is turned off.
Messages are reported from the log files that Finch itself writes, one event a line shown. Finch knows no ANONYMOUS.
"""

import glob
import os
import re
import sys
from xml.sax.saxutils import escape

from lines import emit, serve
from stanzas import Stanzas, Stream
from terminal import Terminal

ACCOUNT = """<?xml version='1.0' encoding='UTF-8' ?>
<account version='1.0'><account>
 <protocol>prpl-jabber</protocol><name>{jid}/</name><password>{password}</password><alias>me</alias>
 <settings>
  <setting name='connect_server' type='string'></setting>
  <setting name='port' type='int'>{port}</setting>
  <setting name='connection_security' type='string'>{security}</setting>
  <setting name='auth_plain_in_clear' type='bool'>0</setting>
 </settings>
 <settings ui='gnt-purple'><setting name='auto-login' type='bool'>1</setting></settings>
</account></account>
"""
PREFERENCES = """<?xml version='1.0' encoding='UTF-8' ?>
<pref version='1' name='/'><pref name='purple'><pref name='logging'>
 <pref name='log_ims' type='bool' value='1'/><pref name='format' type='string' value='txt'/>
</pref></pref></pref>
"""
SECURITY = {"starttls": "require_tls", "direct": "old_ssl"}
LOGS = "purple/logs/jabber/*/*/*.txt"
SAID = re.compile(r"^\(\d\d:\d\d:\d\d(?: [AP]M)?\) ([^:]*(?:: )?.*)$", re.S)
STAMP = re.compile(r"^(?=\(\d\d:\d\d:\d\d(?: [AP]M)?\) )", re.M)
RECEIVED = re.compile(rb"jabber: Recv (?:\(ssl\))?\((\d+)\): ")
LOOKS_WRONG = re.compile(
    r"[^│]*(?:\berror|fail|lost connection|not supported|denied|refused|unavailable|invalid|timed? ?out|unable|could not|cannot|not delivered)[^│]*",
    re.I,
)


class Finch:
    def __init__(self, folder):
        self.folder = folder
        self.debug = os.path.join(folder, "debug.log")
        self.offsets = {}
        self.stanzas = Stanzas()
        self.stream = Stream()
        self.shown = set()
        self.windows = {}
        self.terminal = None

    def connect(self, host, port, tls, domain, jid, password, ca_file):
        if jid is None:
            emit("error", text="Finch knows no SASL ANONYMOUS")
            return
        self.write("purple/accounts.xml", ACCOUNT.format(jid=jid, password=escape(password), port=port, security=SECURITY[tls]))
        self.write("purple/prefs.xml", PREFERENCES)
        self.write("hosts", f"127.0.0.1 localhost\n{host} {domain}\n")
        with open(ca_file, encoding="ascii") as file:
            self.write("certs/ca.pem", file.read())
        script = (
            f"mount --bind '{self.folder}/certs' /etc/ssl/certs && mount --bind '{self.folder}/hosts' /etc/hosts && "
            f"exec finch -d -c '{self.folder}/purple' 2>'{self.debug}'"
        )
        self.terminal = Terminal(self.folder, f'exec unshare -Urm sh -c "{script}"', {"HOME": self.folder})
        self.terminal.until(lambda: "┤Debug Window├" in self.terminal.screen(), "Finch's windows")
        # The debug log goes on in its file; its window would only cover others.
        self.focus("Debug Window")
        self.terminal.keys("M-c")
        self.terminal.until(lambda: self.window("Debug Window") is None, "the debug window's end")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def window(self, title):
        """The number of the window whose title starts so, as the bar at the foot has it."""
        screen = self.terminal.screen()
        titles = [t.strip() for t in screen.rsplit("\n", 1)[-1].split("│")]
        return next((i + 1 for i, t in enumerate(titles) if t and (t.startswith(title) or title.startswith(t))), None)

    def focus(self, title):
        number = self.window(title)
        self.terminal.keys(f"M-{number % 10}")

    def send(self, to, body):
        if self.windows.get("focus") != to:
            # The person's way to open, or to come back to, a conversation.
            self.focus("Buddy List")
            self.terminal.keys("C-o")
            self.terminal.until(lambda: "Send IM..." in self.terminal.screen(), "the buddy list's menu")
            self.terminal.keys("s")
            self.terminal.until(lambda: "┤New Instant Message├" in self.terminal.screen(), "the dialogue for a message")
            self.terminal.type(to)
            self.terminal.until(lambda: to[-20:] in self.terminal.screen(), "the name in the dialogue")
            self.terminal.keys("Tab", "Enter")
            self.terminal.until(lambda: "┤New Instant Message├" not in self.terminal.screen(), "the conversation's window")
            self.windows["focus"] = to
        self.terminal.line(body)

    def presence(self, show):
        emit("error", text=f"this driver does not set Finch's presence ({show})")

    def screen(self, of):
        self.windows.clear()
        self.focus(of or "Buddy List")
        emit("screen", text=self.terminal.screen())

    def look(self):
        """Reports what came since the last look."""
        if self.terminal is None:
            return
        chats = [(path, self.growth(path)) for path in sorted(glob.glob(os.path.join(self.folder, LOGS)))]
        # Read after the chats, so that the id of each of their messages is known.
        self.debug_log()
        for path, text in chats:
            contact = os.path.basename(os.path.dirname(path))
            for record in STAMP.split(text.decode("utf-8", "replace")):
                self.chat_record(contact, record.rstrip("\n"))
        self.errors_on(self.terminal.screen())
        if self.terminal.dead():
            emit("error", text="Finch has ended by itself:\n" + self.terminal.screen())
            raise SystemExit(1)

    def growth(self, path):
        """The whole lines that a file has gained."""
        try:
            with open(path, "rb") as file:
                file.seek(self.offsets.get(path, 0))
                text = file.read()
        except FileNotFoundError:
            return b""
        whole = text[: text.rfind(b"\n") + 1]
        self.offsets[path] = self.offsets.get(path, 0) + len(whole)
        return whole

    def debug_log(self):
        """Takes the received bytes out of the debug log: each piece says its length."""
        start = self.offsets.get(self.debug, 0)
        try:
            with open(self.debug, "rb") as file:
                file.seek(start)
                text = file.read()
        except FileNotFoundError:
            return
        taken = 0
        while head := RECEIVED.search(text, taken):
            end = head.end() + int(head[1])
            if end > len(text):
                break
            taken = end
            for stanza in self.stream.feed(text[head.end() : end].decode("utf-8", "replace")):
                self.stanzas.received(stanza)
        self.offsets[self.debug] = start + taken

    def chat_record(self, contact, record):
        said = SAID.match(record)
        if not said or said[1].startswith("me: "):
            return
        # Remarks of Finch's own ("... has signed on") have no colon after a name.
        name, colon, body = said[1].partition(": ")
        if colon:
            self.stanzas.shown(contact, body)
        elif LOOKS_WRONG.search(name):
            self.error(name)

    def errors_on(self, screen):
        for row in screen.split("\n")[:-1]:
            found = LOOKS_WRONG.search(row)
            if found and not re.search(r"\(\d\d:\d\d:\d\d\) ", row):
                self.error(found[0].strip())

    def error(self, text):
        if text not in self.shown:
            self.shown.add(text)
            emit("error", text=text)

    def quit(self):
        """Looks once more at every window, then leaves as a person would."""
        if self.terminal is None:
            return
        for number in range(1, 7):
            self.terminal.keys(f"M-{number}")
            self.look()
        self.terminal.keys("M-q")
        self.terminal.until(self.terminal.dead, "Finch's end", 5)
        emit("closed")


serve(Finch(sys.argv[1]))
