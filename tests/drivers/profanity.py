"""Drives Profanity (Debian's 0.13.1) in tmux. Usage: profanity.py FOLDER

Messages are reported from the chat log files that Profanity itself writes, one event a record, so that a lost, doubled or
swapped message shows as its user would see it. Ids, presence, `<a/>` and `<resumed/>` come from its debug log, which
carries the raw stanzas. Errors come from the screen, all windows of it, and from the ERR lines of its log.
"""

import glob
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

from lines import emit, serve
from stanzas import Stanzas
from terminal import Terminal

RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* - (.*)$", re.S)
STAMP = re.compile(r"^(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*(?: - |: ))", re.M)
SCREEN_LINE = re.compile(r"^\d\d:\d\d:\d\d - (.*)$")
CHAT_LINE = re.compile(r"^(?!error)(me|\S+@\S+|\S+): ", re.I)
LOOKS_WRONG = re.compile(
    r"\berror|fail|lost connection|not supported|denied|refused|unavailable|invalid|timed? ?out|unable|could not|cannot", re.I
)
# Said at every start, whatever the server.
HARMLESS = re.compile(r"no rc file|chat log.*encrypt", re.I)
CHATS = "data/profanity/chatlogs/*/*/*.log"
TLS = {"starttls": "force", "direct": "legacy"}


class Profanity:
    def __init__(self, folder):
        self.folder = folder
        self.log = os.path.join(folder, "debug.log")
        self.offsets = {}
        self.stanzas = Stanzas()
        self.shown = set()
        self.terminal = None

    def start(self, ca_file):
        """Profanity with nothing but the CA in its folder of trusted certificates."""
        certificates = os.path.join(self.folder, "certs")
        config = os.path.join(self.folder, "config", "profanity")
        os.makedirs(certificates)
        os.makedirs(config)
        # A folder of certificates has one in each file.
        with open(ca_file, encoding="ascii") as bundle:
            for number, certificate in enumerate(bundle.read().split("-----END CERTIFICATE-----")[:-1]):
                with open(os.path.join(certificates, f"{number}.pem"), "w", encoding="ascii") as file:
                    file.write(certificate.strip() + "\n-----END CERTIFICATE-----\n")
        # OpenSSL finds a CA in a folder by the hash of its name.
        subprocess.run(["openssl", "rehash", certificates], check=True)
        with open(os.path.join(config, "profrc"), "w", encoding="utf-8") as profrc:
            profrc.write(f"[connection]\ntls.certpath={certificates}\nreconnect=2\n[ui]\nsplash=false\noccupants=false\n[logging]\nchlog=true\n")
        self.terminal = Terminal(
            self.folder,
            f"exec profanity -l DEBUG -f '{self.log}'",
            {
                "HOME": self.folder,
                "XDG_CONFIG_HOME": os.path.join(self.folder, "config"),
                "XDG_DATA_HOME": os.path.join(self.folder, "data"),
            },
        )
        self.terminal.until(lambda: "Logging to:" in self.terminal.screen(), "Profanity's first screen")

    def connect(self, host, port, tls, domain, jid, password, ca_file):
        if self.terminal is None:
            self.start(ca_file)
        self.terminal.line(f"/connect {jid or domain} server {host} port {port} tls {TLS[tls]}")
        self.terminal.until(lambda: "Enter password:" in self.terminal.screen(), "the password prompt")
        # For ANONYMOUS it asks all the same: Enter alone is a person's answer.
        self.terminal.line(password or "")

    def send(self, to, body):
        self.terminal.line(f"/msg {to} {body}")

    def presence(self, show):
        self.terminal.line(f"/status set {show or 'online'}")

    def screen(self, of):
        # A window is drawn by the next turn of its loop. By way of the console, whose title is known, the change shows.
        self.terminal.line("/win 1")
        self.terminal.until(lambda: self.terminal.screen().startswith(" Profanity."), "the console")
        if of:
            self.terminal.line(f"/win {of}")
            self.terminal.until(lambda: not self.terminal.screen().startswith(" Profanity."), f"the window of {of}")
        emit("screen", text=self.terminal.screen())

    def look(self):
        """Reports what came since the last look."""
        if self.terminal is None:
            return
        chats = [(path, self.records(path)) for path in sorted(glob.glob(os.path.join(self.folder, CHATS)))]
        # Read after the chats, so that the id of each of their messages is known.
        for record in self.records(self.log):
            self.log_record(record)
        for path, records in chats:
            contact = "@".join(os.path.basename(os.path.dirname(path)).rsplit("_at_", 1))
            for record in records:
                self.chat_record(contact, record)
        self.errors_on(self.terminal.screen())
        if self.terminal.dead():
            emit("error", text="Profanity has ended by itself:\n" + self.terminal.screen())
            raise SystemExit(1)

    def records(self, path):
        """What a growing file has gained, cut at its time stamps; a last record without its line end waits."""
        try:
            with open(path, "rb") as file:
                file.seek(self.offsets.get(path, 0))
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.offsets[path] = self.offsets.get(path, 0) + len(whole)
        return [part.rstrip("\n") for part in STAMP.split(whole.decode("utf-8", "replace")) if part]

    def chat_record(self, contact, record):
        said = RECORD.match(record)
        if not said:
            return
        who, _, body = said[1].partition(": ")
        if who == "me":
            return
        self.stanzas.shown(contact, body)

    def log_record(self, record):
        if " RECV: <" in record:
            try:
                self.stanzas.received(xml.fromstring(record.split(" RECV: ", 1)[1]))
            except xml.ParseError:
                # The stream's own head and foot are no stanzas.
                pass
        elif " prof: ERR: " in record:
            self.error(record.split(" prof: ERR: ", 1)[1])
        elif "lost connection" in record.lower():
            emit("closed")

    def errors_on(self, screen):
        for row in screen.split("\n"):
            line = SCREEN_LINE.match(row)
            if line and not CHAT_LINE.match(line[1]) and LOOKS_WRONG.search(line[1]):
                self.error(line[1])

    def error(self, text):
        if text not in self.shown and not HARMLESS.search(text):
            self.shown.add(text)
            emit("error", text=text)

    def quit(self):
        """Goes once more through every window, then leaves as a person would."""
        if self.terminal is None:
            return
        for window in range(1, 7):
            self.terminal.line(f"/win {window}")
            self.look()
        self.terminal.line("/quit")
        self.terminal.until(self.terminal.dead, "Profanity's end", 5)
        emit("closed")


serve(Profanity(sys.argv[1]))
