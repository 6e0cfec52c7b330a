#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""keel run's networks and consoles from outside, sealed as they are. KTAP on stdout.

usage: devices_test.py KEEL DEVICES_ELF [TEST...]

KEEL_TEST_BACKEND in the environment names the backend that runs every guest.
"""
import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time

from outside import TESTS, Skip, await_output, expect, expect_status, run_tests, status_of, test

KEEL, GUEST = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
LIMIT = 60  # seconds any one guest may take
BACKEND = ["--backend", os.environ["KEEL_TEST_BACKEND"]] if "KEEL_TEST_BACKEND" in os.environ else []
MIB = 1 << 20
HELD = 32 * MIB  # what a guest's network may hold, beside its sockets' buffers
OTHER = 12 * MIB  # what comes and goes in a process beside


def command(job, *options):
    return [KEEL, "run", "--cmdline", job, "--timeout", str(LIMIT), *BACKEND, *options, GUEST]


def run(job, *options):
    return subprocess.run(command(job, *options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=2 * LIMIT)


@contextlib.contextmanager
def started(job, *options):
    """A guest that does not outlive the test."""
    with subprocess.Popen(command(job, *options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as p:
        try:
            yield p
        finally:
            p.terminate()


def serve(fn, *args):
    threading.Thread(target=fn, args=args, daemon=True).start()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@test
def what_options_say():
    taken = socket.create_server(("127.0.0.1", 0))
    for options, message in (
            (("--net", "users"), "--net: \"users\" is neither user nor tap=NAME"),
            (("--net", "user,restrict=on"), "\"restrict=on\" is none of hostfwd="),
            (("--net", "user,hostfwd=tcp::2222-:22"), "hostfwd=tcp::2222-:22: not tcp|udp:ADDRESS:PORT"),
            (("--net", "user,hostfwd=tcp:127.0.0.1:2222"), "not tcp|udp:ADDRESS:PORT"),
            (("--net", f"user,hostfwd=tcp:127.0.0.1:{taken.getsockname()[1]}-:22"), "Address already in use"),
            (("--net", "user,hostfwd=tcp:192.0.2.1:2222-:22"), "Cannot assign requested address"),
            (("--net", "user,mac=01:02:03:04:05:06"), "not the address of one card"),
            (("--net", "user,mtu=100000"), "mtu=100000: not a number"),
            (("--net", "user", "--net", "user"), "there is one already"),
            (("--net", "tap=a/b"), "not the name of an interface"),
            (("--console", "tty"), "--console tty: neither pty nor file=FILE"),
            (("--console", "file=/no/such/place"), "--console file=/no/such/place: No such file or directory"),
            (("--console", "file="), "neither pty nor file=FILE"),
            (("--disk", "file=/no/such/disk"), "/no/such/disk: No such file or directory"),
            (("--disk", "ro"), "no file=FILE"),
            (("--disk", "file=/dev/null"), "neither a file nor a block device"),
            (("--disk", "size=5"), "\"size=5\" is none of"),
            (("--rng",) * 9, "--rng: more than 8 devices")):
        done = run("idle", *options)
        expect_status(done, 126)
        expect(done.stderr.startswith(b"keel: ") and done.stderr.count(b"\n") == 1, options, done.stderr)
        expect(message.encode() in done.stderr, options, done.stderr)
    taken.close()


@test
def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))

        def echo():
            text, who = s.recvfrom(100)
            s.sendto(b"pong to " + text + b"\n", who)

        serve(echo)
        done = run(f"udp port={s.getsockname()[1]}", "--net", "user")
        expect_status(done, 0)
        expect(done.stdout == b"pong to ping\n", done.stdout)


@test
def names():
    """Any answer of the name server's is one: the library read resolv.conf before the seal."""
    done = run("dns", "--net", "user")
    if done.returncode == 1:
        raise Skip("the name server of this machine does not answer")
    expect_status(done, 0)


@test
def connection_out():
    text = os.urandom(150000).hex().encode() + b"\n"
    with socket.create_server(("127.0.0.1", 0)) as s:

        def answer():
            c, _ = s.accept()
            with c:
                expect(c.recv(100) == b"hello\n")
                c.sendall(text)

        serve(answer)
        done = run(f"tcp port={s.getsockname()[1]}", "--net", "user")
        expect_status(done, 0)
        expect(done.stdout == text, len(done.stdout), "bytes of", len(text))
    # Nobody there: the guest hears of it, and does not wait.
    begin = time.monotonic()
    done = run(f"tcp port={free_port()}", "--net", "user")
    expect_status(done, 1)
    expect(time.monotonic() - begin < 9, "a refused connection is not told")


@test
def connection_in():
    port = free_port()
    with started("serve", "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:7") as p:
        await_output(p.stdout, b"ready\n")
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as c:
            for text in (b"x", b"hello", b"y" * 1000):
                c.sendall(text)
                got = b""
                while len(got) < len(text):
                    more = c.recv(2000)
                    expect(more, "ended after", got)
                    got += more
                expect(got == text, got)
            c.shutdown(socket.SHUT_WR)
            expect(c.recv(10) == b"")
        expect(p.wait(LIMIT) == 0, p.returncode)


@test
def floods_keep_memory_flat():
    """Whatever a guest sends that its network would have to remember."""
    for kind, frames, sockets in (("ports", 20000, 512), ("half-open", 20000, 512), ("fragments", 30000, 0),
                                  ("strangers", 10000, 200)):
        with started(f"flood kind={kind} frames={frames}", "--net", "user") as p:
            await_output(p.stdout, b"flooded\n")
            peak = status_of(p.pid, "VmHWM") * 1024
            fds = len(os.listdir(f"/proc/{p.pid}/fd"))
            # A socket that has not sent anything has no buffers yet.
            expect(peak < HELD + OTHER, kind, peak // MIB, "MiB")
            expect(fds < sockets + 64, kind, fds, "descriptors")


@test
def floods_from_outside_keep_memory_flat():
    """To a guest that reads nothing."""
    port = free_port(socket.SOCK_DGRAM)
    with started("idle", "--net", f"user,hostfwd=udp:127.0.0.1:{port}-:7") as p:
        await_output(p.stdout, b"idle\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for _ in range(50000):
                with contextlib.suppress(OSError):
                    s.sendto(b"z" * 1400, ("127.0.0.1", port))
        expect(status_of(p.pid, "VmHWM") * 1024 < HELD + OTHER, status_of(p.pid, "VmHWM") // 1024, "MiB")
        expect(p.poll() is None, "it ended")


@test
def idle_network_is_quiet():
    with started("idle", "--net", f"user,hostfwd=tcp:127.0.0.1:{free_port()}-:7") as p:
        await_output(p.stdout, b"idle\n")
        time.sleep(1.5)

        def wakeups():
            total = 0
            for task in os.listdir(f"/proc/{p.pid}/task"):
                total += status_of(p.pid, "voluntary_ctxt_switches", task)
            return total

        before = wakeups()
        time.sleep(4)
        expect(wakeups() - before <= 4, wakeups() - before, "wake-ups in 4 s")


@test
def tap():
    """In a network of its own, where the host is 10.0.2.2."""
    ip = shutil.which("ip")
    if not ip or not shutil.which("unshare"):
        raise Skip("no ip, or no unshare")
    server = """import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.2.2", 4711))
text, who = s.recvfrom(100)
s.sendto(b"pong to " + text + b"\\n", who)
"""
    script = f"""{ip} link set lo up && {ip} tuntap add keel0 mode tap &&
{ip} link set keel0 address 52:55:0a:00:02:02 && {ip} addr add 10.0.2.2/24 dev keel0 && {ip} link set keel0 up || exit 77
"$PYTHON" -c "$SERVER" & sleep 1; exec "$@"
"""
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    done = subprocess.run([*unshare, "sh", "-c", script, "sh", *command("udp port=4711", "--net", "tap=keel0")],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=2 * LIMIT,
                          env={**os.environ, "PYTHON": sys.executable, "SERVER": server})
    if done.returncode == 77 or b"unshare" in done.stderr or b"/dev/net/tun" in done.stderr:
        raise Skip(done.stderr.decode().strip())
    expect_status(done, 0)
    expect(done.stdout == b"pong to ping\n", done.stdout)


def lines(n):
    return b"".join(bytes([97 + i % 26]) * 63 + b"\n" for i in range(n))


@test
def console_file():
    with open("out", "w", encoding="ascii") as f:
        f.write("what was there before " * 10000)
    done = run("console lines=2000", "--console", "file=out")
    expect_status(done, 0)
    with open("out", "rb") as f:
        expect(f.read() == lines(2000), "not what was written")
    done = run("console lines=10", "--console", "file=new")
    expect_status(done, 0)
    expect(os.stat("new").st_mode & 0o077 == 0, "others may read it")


@test
def console_pty():
    with started("console ask lines=2000", "--console", "pty") as p:
        name = re.search(rb"console 0 is (/dev/pts/\d+)\n", await_output(p.stderr, b"/dev/pts/")).group(1)
        fd = os.open(name, os.O_RDWR | os.O_NOCTTY)
        with os.fdopen(fd, "r+b", buffering=0) as terminal:
            terminal.write(b"!")
            want, got = lines(2000), b""
            time.sleep(0.5)  # it fills, and the guest waits
            while len(got) < len(want):
                expect(select.select([terminal], [], [], LIMIT)[0], "stuck after", len(got))
                got += terminal.read(4096)
            expect(got == want, "not what was written")
            terminal.write(b"good bye\n")
            await_output(p.stdout, b"good bye\n")
            expect(p.wait(LIMIT) == 0, p.returncode)


@test
def console_without_reader():
    """A guest does not wait for somebody to look."""
    done = run("console lines=20000", "--console", "pty")
    expect_status(done, 0)


sys.exit(run_tests([t for t in TESTS if not sys.argv[3:] or t.__name__ in sys.argv[3:]]))
