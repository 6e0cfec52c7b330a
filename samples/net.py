#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""net.py PORT - is what answers on this port of 127.0.0.1 the server of net.c? It ends with the page it serves here."""
import http.client
import socket
import sys
import time

PORT = int(sys.argv[1])


def connect(seconds):
    """The guest may be about to start."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", PORT), timeout=seconds)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def answer(pieces):
    """Send a request in pieces; status and body of what comes back until the server closes."""
    with connect(20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            s.sendall(piece)
        response = http.client.HTTPResponse(s)
        response.begin()
        body = response.read()
        if len(body) != int(response.headers["Content-Length"]) or s.recv(1):
            sys.exit(f"{len(body)} bytes where {response.headers['Content-Length']} are announced")
        return response.status, body.decode()


# Gone before it has asked, and gone in the middle.
connect(20).close()
with connect(20) as gone:
    gone.sendall(b"GET / HT")

status, body = answer([b"GET /favicon.ico HTTP/1.1\r\nHost: here\r\n\r\n"])
if status != 404 or body:
    sys.exit(f"another page: {status}")
status, body = answer(bytes([b]) for b in b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
want = "".join(f"{n:4} squared is {n * n:6}\n" for n in range(1, 21))
if status != 200 or "Hello from a Keel guest" not in body or not body.endswith(want):
    sys.exit(f"the page: {status}\n{body}")
