"""The drivers' side of the line protocol: one JSON object a line, commands on stdin, events on stdout.

Commands   {"do": "connect", "host", "port", "tls": "direct|starttls", "domain", "jid": null|"user@domain",
                "password": null|"...", "ca_file"}          jid null is SASL ANONYMOUS at `domain`
           {"do": "send", "to", "body"}   {"do": "presence", "show": null|"away"|"xa"|"dnd"|"chat"}
           {"do": "screen", "of": null|"jid"}                what a person would see, of the window with `jid`
           {"do": "quit"}                                    so does the end of stdin
Events     {"event": "ready", "client"}   {"event": "connected", "jid"}   {"event": "message", "from", "body", "id"}
           {"event": "presence", "from", "show"}             show is "available", "away", ... or "unavailable"
           {"event": "error", "text"}                        anything the client shows its user as an error
           {"event": "auth_failed", "condition", "text"}     {"event": "a", "h"}   {"event": "resumed", "h"}
           {"event": "screen", "text"}                       {"event": "closed"}
"""

import json
import os
import select
import sys


def emit(event, **fields):
    """Writes one event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Commands:
    """Commands from stdin, taken without blocking longer than asked."""

    def __init__(self):
        self.pending = b""
        self.ended = False

    def take(self, seconds):
        """Waits at most `seconds`; returns the commands that came. At the end of stdin, a last `quit`."""
        if self.ended or not select.select([0], [], [], seconds)[0]:
            return []
        got = os.read(0, 65536)
        self.pending += got
        *lines, self.pending = self.pending.split(b"\n")
        commands = [json.loads(line) for line in lines if line.strip()]
        if not got:
            self.ended = True
            commands.append({"do": "quit"})
        return commands


def serve(client):
    """Obeys commands and looks at the client in turn, until `quit`. The client has a method for each command and `look`."""
    commands = Commands()
    emit("ready", client=type(client).__name__)
    try:
        while True:
            for command in commands.take(0.05):
                do = command.pop("do")
                getattr(client, do)(**command)
                if do == "quit":
                    return
            client.look()
    except Exception as fault:  # pylint: disable=broad-except
        emit("error", text=f"the driver failed: {fault}")
        raise
    finally:
        if client.terminal is not None:
            client.terminal.end()
