"""Plain sockets for the lab's own proof. Usage: probe.py WHAT ADDRESS PORT

udp-echo     answers datagrams for ever, after a line "listening"     tcp-listen   the same for TCP connections
udp-ask      sends one datagram for each line of stdin, and prints "answered" or "silence" for it, from one socket
tcp-connect  prints "connected", "silence" or "refused"
"""

import socket
import sys

# Loopback round trips take well under a millisecond; a dropped packet never comes.
PATIENCE = 0.7

what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind = socket.SOCK_DGRAM if what.startswith("udp") else socket.SOCK_STREAM
plug = socket.socket(socket.AF_INET, kind)
if what == "udp-echo":
    plug.bind((address, port))
    print("listening", flush=True)
    while True:
        data, peer = plug.recvfrom(2048)
        plug.sendto(data, peer)
elif what == "tcp-listen":
    plug.bind((address, port))
    plug.listen()
    print("listening", flush=True)
    while True:
        plug.accept()[0].close()
elif what == "udp-ask":
    plug.settimeout(PATIENCE)
    for line in sys.stdin:
        plug.sendto(line.encode(), (address, port))
        try:
            while plug.recvfrom(2048)[0] != line.encode():
                pass
            print("answered", flush=True)
        except TimeoutError:
            print("silence", flush=True)
elif what == "tcp-connect":
    plug.settimeout(PATIENCE)
    try:
        plug.connect((address, port))
        print("connected")
    except TimeoutError:
        print("silence")
    except ConnectionRefusedError:
        print("refused")
