"""A terminal program in a tmux server of its own: keys go in, the screen is read.

The server is a child of the driver (`tmux -D`), has its own socket, and ends with the driver: by its own id, and by the
kernel's parent-death signal should the driver be killed.
"""

import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
# Wide and tall enough that nothing a test looks for is wrapped away or scrolls off.
COLUMNS, ROWS = 240, 160


class Terminal:
    def __init__(self, folder, command, environment):
        """Starts `command` (a shell line) with `environment` on top of a minimal one."""
        self.socket = os.path.join(folder, "tmux")
        # A service account has no shell that tmux could use.
        env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "SHELL": "/bin/sh", "TMPDIR": folder, **environment}
        libc = ctypes.CDLL(None)
        self.server = subprocess.Popen(
            ["tmux", "-D", "-S", self.socket, "-f", "/dev/null"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
        self.env = env
        self.until(lambda: os.path.exists(self.socket), "the tmux server's socket")
        self.tmux("set-option", "-g", "escape-time", "0")
        self.tmux("set-option", "-g", "remain-on-exit", "on")
        self.tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), command)

    def tmux(self, *arguments):
        """One tmux command; its output."""
        done = subprocess.run(
            ["tmux", "-S", self.socket, *arguments], env=self.env, capture_output=True, text=True, timeout=20, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"tmux {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def line(self, text):
        """Types one line and Enter."""
        # A trailing ; would end tmux's own command.
        typed = text[:-1] + "\\;" if text.endswith(";") else text
        self.tmux("send-keys", "-l", "--", typed, ";", "send-keys", "Enter")

    def type(self, text):
        """Types text without Enter."""
        self.tmux("send-keys", "-l", "--", text)

    def keys(self, *names):
        """Presses keys by their tmux names."""
        self.tmux("send-keys", *names)

    def screen(self):
        """What a person would see, without empty lines and trailing spaces."""
        rows = self.tmux("capture-pane", "-p").split("\n")
        return "\n".join(row.rstrip() for row in rows if row.strip())

    def dead(self):
        """Whether the program has ended."""
        return self.tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def until(self, true, what, seconds=15):
        """Looks every 30 ms whether `true()`; gives up with the screen after `seconds`."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {seconds} s for {what}; the screen:\n{self.screen()}")
            time.sleep(0.03)

    def end(self):
        """Ends the program and its tmux server."""
        self.server.terminate()
        try:
            self.server.wait(5)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
