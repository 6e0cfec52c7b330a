#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host's devices from outside: what is durable and when, what a request costs, how much memory they hold,
restarts, options. KTAP on stdout.

usage: io_test.py KEEL GUEST MUTANT [TEST...]

GUEST is io.elf, MUTANT a host built with KEEL_BUGS=1. Without TEST the short ones run; "long" stands for the others.
SEED in the environment repeats a run.
"""
import ctypes
import fcntl
import functools
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time

from outside import TESTS, Skip, children, expect, read_proc, run_tests, say, status_of, test

KEEL, GUEST, MUTANT = (os.path.abspath(p) for p in sys.argv[1:4])
LIMIT = 30  # seconds any one guest may take
SEED = int(os.environ.get("SEED", time.time_ns() % 1000000000))
BUG = 65  # planted in block.c: nothing is synced, neither a flush nor the writes of a driver without flushes
SECTOR, SECTORS = 512, 2048
MAGIC, MIX = 0x64726F6365722121, 0x9E3779B97F4A7C15
LONG = []
rng = random.Random(SEED)


def long_test(fn):
    LONG.append(fn)
    return fn


# Processes


def threads(pid):
    return [int(t) for t in os.listdir(f"/proc/{pid}/task")]


def device_thread(pid):
    """The one behind a filter of its own, on top of the process's. It may not yet have come to that."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        filters = {t: status_of(pid, "Seccomp_filters", t) for t in threads(pid)}
        if more := [t for t in filters if filters[t] > filters[pid]]:
            return more[0]
    raise AssertionError(f"no device's thread: {filters}")


def guest_process(pid):
    """The one the guest's kernel runs in: the keeper's child."""
    return [k for keeper in children(pid) for k in children(keeper)][0]


def switches(pid):
    """How often its threads went to sleep, which is how often they were woken."""
    return {t: status_of(pid, "voluntary_ctxt_switches", t) for t in threads(pid)}


class Guest(subprocess.Popen):
    """keel run, talked to by lines. It does not outlive the test."""

    def __init__(self, mode, *options, keel=KEEL, before=(), bug=0):
        env = {**os.environ, "KEEL_BUG": str(bug)}
        command = [*before, keel, "run", "--backend", "ring3", "--timeout", str(LIMIT), "--core", "none"]
        super().__init__(
            [*command, "--cmdline", mode, *options, GUEST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.said = b""

    def __exit__(self, exc_type, value, traceback):
        if self.poll() is None:
            for p in children(self.pid):
                if b"strace" in self.args[0].encode():
                    os.kill(p, signal.SIGKILL)
            self.kill()
        return super().__exit__(exc_type, value, traceback)

    def await_match(self, pattern, seconds=LIMIT):
        """Read output until the pattern is in what was not looked at; returns the match."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            expect(time.monotonic() < end, "no", pattern, "but", self.said[-200:])
            self.read_some(0.1)
        self.said = self.said[found.end() :]
        return found

    def read_some(self, seconds):
        if select.select([self.stdout], [], [], seconds)[0]:
            more = os.read(self.stdout.fileno(), 65536)
            if not more:
                status = self.wait(LIMIT)
                expect(False, "ended with", status, "after", self.said[-200:], self.stderr.read())
            self.said += more

    def go(self):
        self.stdin.write(b"\n")
        self.stdin.flush()

    def ready(self):
        self.await_match(rb"ready\n")

    def measure(self):
        """Let it do what it waits with; ns it took, and the frames that came in."""
        self.go()
        done = self.await_match(rb"done (\d+) got (\d+)\nready\n")
        return int(done[1]), int(done[2])

    def finish(self):
        self.go()
        out, err = self.communicate(timeout=LIMIT)
        expect(self.returncode == 0, "exit status", self.returncode, out[-200:], err)


def scratch(name, size=SECTOR * SECTORS):
    """An empty disk."""
    if os.path.exists(name):
        os.unlink(name)
    with open(name, "wb") as f:
        f.truncate(size)
    return name


def disk(path):
    return ["--disk", "file=" + path]


# Records


@functools.lru_cache(None)
def record(seq):
    words = [MAGIC, seq] + [(seq + i) * MIX % 2**64 for i in range(2, SECTOR // 8)]
    return struct.pack(f"<{SECTOR // 8}Q", *words)


def missing(sector_at, acked):
    """The first acknowledged record that is neither where it belongs nor was replaced by a later one; 0 is none."""
    for seq in range(max(1, acked - SECTORS + 1), acked + 1):
        data = sector_at(seq % SECTORS)
        if data == record(seq):
            continue
        there = struct.unpack_from("<Q", data, 8)[0]
        if there < seq or there % SECTORS != seq % SECTORS or data != record(there):
            return seq
    return 0


def last_ack(text):
    acks = re.findall(rb"ack (\d+)\n", text)
    return int(acks[-1]) if acks else 0


@test
def acknowledged_records_survive_a_kill():
    total = 0
    for i in range(100):
        path = scratch("kill")
        # Both ways of being sure.
        mode = "log sync" if i % 4 == 3 else "log"
        with Guest(mode, *disk(path)) as g:
            k = guest_process_when_there(g)
            end = time.monotonic() + LIMIT
            while not last_ack(g.said):
                expect(time.monotonic() < end, "no record in", LIMIT, "s")
                g.read_some(1)
            # Nearly all of it is random: also the time until the first record was.
            until = time.monotonic() + rng.random() * 0.03
            while (left := until - time.monotonic()) > 0:
                g.read_some(left)
            g.kill()
            acked = last_ack(g.said + g.stdout.read())
        with open(path, "rb") as f:
            image = f.read()
        sectors = [image[at : at + SECTOR] for at in range(0, len(image), SECTOR)]
        lost = missing(sectors.__getitem__, acked)
        expect(not lost, "round", i, mode, "acknowledged up to", acked, "but lost", lost)
        expect(not read_proc(k, "maps") or wait_gone(k), "the guest lives on")
        total += acked
        sectors[acked % SECTORS] = record(0)
        expect(missing(sectors.__getitem__, acked), "nobody misses", acked)
    say(f"{total} records acknowledged in 100 rounds")
    expect(total > 2000, "hardly any records:", total)


def guest_process_when_there(g):
    """Once it says something it is there."""
    g.read_some(LIMIT)
    return guest_process(g.pid)


def wait_gone(pid):
    end = time.monotonic() + 5
    while read_proc(pid, "stat").split(")")[-1].split()[:1] not in ([], ["Z"], ["X"]):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


# Order, as strace sees it where there is no io_uring


class Event:
    """A system call that began, or ended with a result."""

    def __init__(self, tid, name, args, result=None):
        self.tid, self.name, self.args, self.result = tid, name, args, result

    def data(self):
        """What is written."""
        return b"".join(bytes.fromhex(s.replace("\\x", "")) for s in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', self.args))

    def place(self):
        """Byte of a pwritev2(fd, iov, n, offset, flags)."""
        return int(re.search(r"\], \d+, (\d+), ", self.args)[1])


def parse(path):
    """A trace as events in the order they happened."""
    events, open_calls = [], {}
    with open(path, encoding="ascii") as f:
        for line in f:
            if begun := re.match(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$", line):
                event = Event(*begun.groups())
                open_calls[event.tid] = event
                events.append(event)
            elif resumed := re.match(r"(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)", line):
                event = open_calls.pop(resumed[1])
                expect(event.name == resumed[2], "trace:", line)
                events.append(Event(event.tid, event.name, event.args, int(resumed[3])))
            elif whole := re.match(r"(\d+) +(\w+)\((.*)\) += (-?\d+)", line):
                tid, name, args, result = whole.groups()
                events += [Event(tid, name, args), Event(tid, name, args, int(result))]
    return events


class Replay:
    """What is on stable storage, what may be, and what the guest said, event by event."""

    def __init__(self):
        self.begun, self.done, self.durable = {}, {}, {}  # seq: sector's bytes
        self.snapshot, self.said, self.acked, self.checked = {}, b"", 0, 0
        self.begun_by = {}

    def write(self, e):
        data = e.data()
        sector = e.place() // SECTOR
        expect(len(data) == SECTOR, "a write of", len(data), "bytes")
        seq = struct.unpack_from("<Q", data, 8)[0]
        expect(seq % SECTORS == sector, "record", seq, "goes to", sector)
        return seq, data

    def step(self, e):
        """Returns what is wrong, or nothing."""
        if e.name == "pwritev2" and e.result is None:
            seq, data = self.write(e)
            self.begun[seq] = data
            self.begun_by[e.tid] = seq
        elif e.name == "pwritev2":
            seq = self.begun_by.pop(e.tid)
            if e.result == SECTOR:
                self.done[seq] = self.begun[seq]
                if "RWF_DSYNC" in e.args:
                    self.durable[seq] = self.begun[seq]
        elif e.name == "fdatasync" and e.result is None:
            self.snapshot[e.tid] = dict(self.done)
        elif e.name == "fdatasync" and e.result == 0:
            self.durable.update(self.snapshot.pop(e.tid))
        elif e.name == "write" and e.result is None:
            self.said += e.data()
            self.acked = max(self.acked, last_ack(self.said))
            for seq in range(self.checked + 1, self.acked + 1):
                if seq not in self.durable:
                    return f"acknowledged {seq}, which was not on stable storage"
            self.checked = self.acked
        return None

    def crash(self):
        """A disk after the power failed: all that is durable, and any of the rest, in any order."""
        image = {seq % SECTORS: data for seq, data in sorted(self.durable.items())}
        rest = [seq for seq in self.begun if seq not in self.durable]
        for seq in rng.sample(rest, rng.randint(0, len(rest))):
            image[seq % SECTORS] = self.begun[seq]
        return image


def replay(events, crashes):
    """What is wrong with a trace, and how far it came. At `crashes` events the power fails as well."""
    r = Replay()
    at = set(rng.sample(range(len(events)), min(crashes, len(events))))
    for i, e in enumerate(events):
        wrong = r.step(e)
        if not wrong and i in at:
            image = r.crash()
            lost = missing(lambda s, image=image: image.get(s, record(0)), r.acked)
            wrong = f"after {i} events a crash loses {lost}, acknowledged up to {r.acked}" if lost else None
        if wrong:
            return wrong, r
    return None, r


def traced(mode, acks, keel=KEEL, bug=0):
    """The trace of a guest that got so many records acknowledged."""
    out = "trace"
    before = ["strace", "-f", "-qq", "-xx", "-s", "65536", "-o", out, "-e", "signal=none"]
    before += ["-e", "trace=pwritev2,fdatasync,write,io_uring_setup", "-e", "inject=io_uring_setup:error=ENOSYS"]
    with Guest(mode, *disk(scratch("order")), keel=keel, before=before, bug=bug) as g:
        end = time.monotonic() + LIMIT
        while last_ack(g.said) < acks:
            expect(time.monotonic() < end, "only", last_ack(g.said), "records under strace")
            g.read_some(1)
        os.kill(children(g.pid)[0], signal.SIGTERM)
        g.stdout.read()
        g.wait(LIMIT)
    events = [e for e in parse(out) if e.name != "io_uring_setup"]
    # The host's standard output has a number of its own. What it writes there are lines.
    console = next((e.args.split(",")[0] for e in events if e.name == "write" and e.data().startswith(b"ack ")), None)
    return [e for e in events if e.name != "write" or e.args.split(",")[0] == console]


def check_order(acks, crashes):
    events = traced("log", acks)
    wrong, r = replay(events, crashes)
    expect(not wrong, wrong)
    flushes = sum(e.name == "fdatasync" and e.result == 0 for e in events)
    expect(r.acked >= acks and flushes, r.acked, "records,", flushes, "flushes")
    expect(not any("RWF_DSYNC" in e.args for e in events), "writes are synced beside the flushes")
    say(f"{r.acked} records acknowledged, {flushes} flushes, {min(crashes, len(events))} crashes replayed")
    return events


def check_sync(acks, crashes):
    events = traced("log sync", acks)
    wrong, r = replay(events, crashes)
    expect(not wrong, wrong)
    for e in events:
        expect(e.name != "pwritev2" or "RWF_DSYNC" in e.args, "a write that is not synced:", e.args[-60:])
    expect(r.acked >= acks, "only", r.acked, "records")


@test
def an_acknowledged_flush_was_one():
    events = check_order(200, 100)
    # Would it be noticed? Without all of them, and without one: unless the console is late, and the next one covers for it.
    wrong, _ = replay([e for e in events if e.name != "fdatasync"], 0)
    expect(wrong, "a trace without flushes passes")
    ends = [i for i, e in enumerate(events) if e.name == "fdatasync" and e.result == 0]
    sample = rng.sample(ends[:-1], min(10, len(ends) - 1))
    noticed = sum(replay(events[:i] + events[i + 1 :], 0)[0] is not None for i in sample)
    say(f"{noticed} of {len(sample)} flushes are missed when they are left out")
    expect(noticed, "a trace without a flush passes")


@test
def writes_are_synced_for_who_does_not_flush():
    check_sync(200, 100)


@test
def a_host_that_does_not_sync_is_noticed():
    wrong, _ = replay(traced("log", 20, keel=MUTANT), 0)
    expect(not wrong, "without a bug:", wrong)
    for mode in ("log", "log sync"):
        wrong, _ = replay(traced(mode, 20, keel=MUTANT, bug=BUG), 0)
        expect(wrong, f"bug {BUG} passes with", mode)
        say(f"bug {BUG}, {mode}: {wrong}")


@long_test
def every_crash_of_a_long_trace():
    check_order(3000, 10**9)
    check_sync(3000, 10**9)


# What a request costs


class Attr(ctypes.Structure):
    """struct perf_event_attr, as far as it matters here."""

    _fields_ = [("type", ctypes.c_uint32), ("size", ctypes.c_uint32), ("config", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 12)]


def tracepoint(name, tid, only=b""):
    """A descriptor that counts a thread's, -1 when this is not to be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        try:
            with open(f"{root}/events/{name}/id", encoding="ascii") as f:
                attr = Attr(2, ctypes.sizeof(Attr), int(f.read()))
        except OSError:
            continue
        fd = libc.syscall(298, ctypes.byref(attr), tid, -1, -1, 8)  # perf_event_open
        if fd >= 0 and only:
            fcntl.ioctl(fd, 0x40082406, only + b"\0")  # PERF_EVENT_IOC_SET_FILTER
        return fd
    return -1


def counted(fd):
    return struct.unpack("<Q", os.read(fd, 8))[0]


class SystemCalls:
    """Counts a thread's system calls by the tracepoint, which slows it down least; without one by strace."""

    def __init__(self, tid):
        self.tid = tid
        self.fd = -1 if "NO_TRACEPOINTS" in os.environ else tracepoint("raw_syscalls/sys_enter", tid)
        self.how = "tracepoint" if self.fd >= 0 else "strace"

    def __enter__(self):
        if self.fd < 0:
            self.file = f"calls.{self.tid}"
            self.strace = subprocess.Popen(["strace", "-qq", "-e", "signal=none", "-o", self.file, "-p", str(self.tid)])
            end = time.monotonic() + LIMIT
            while not status_of(self.tid, "TracerPid"):
                expect(self.strace.poll() is None and time.monotonic() < end, "strace cannot attach")
                time.sleep(0.01)
        return self

    def count(self):
        if self.fd >= 0:
            return counted(self.fd)
        with open(self.file, encoding="ascii") as f:
            return sum(1 for _ in f)

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)
        else:
            self.strace.terminate()
            self.strace.wait(LIMIT)


def apart(pid):
    """Host and guest on processors of their own, where a batch is what comes while the other works."""
    both = sorted(os.sched_getaffinity(0))[:2]
    for process, processor in ((pid, both[0]), (guest_process(pid), both[-1])):
        for t in threads(process):
            os.sched_setaffinity(t, {processor})


def ring_syncs(n, keel=KEEL, bug=0):
    """What n flushes make the disk's ring sync, ns for each."""
    with Guest(f"flush n={n}", *disk(scratch("flush")), keel=keel, bug=bug) as g:
        g.ready()
        thread = device_thread(g.pid)
        fd = tracepoint("io_uring/io_uring_submit_req", thread, b"opcode == 3")  # IORING_OP_FSYNC
        if fd < 0:
            raise Skip("no tracepoints")
        with os.fdopen(fd, "rb"):
            ns, _ = g.measure()
            syncs = counted(fd)
        g.finish()
    return syncs, ns / n


@test
def a_flush_is_one_of_the_ring():
    n = 100
    syncs, ns = ring_syncs(n)
    say(f"{syncs} syncs for {n} flushes; write and flush take {ns / 1000:.0f} us")
    expect(syncs == n, "syncs:", syncs)
    syncs, _ = ring_syncs(n, keel=MUTANT, bug=BUG)
    expect(syncs == 0, f"bug {BUG} is no bug")


def costs(depth, n, each="", where="anywhere"):
    """Of n reads: system calls of the disk's thread, wake-ups of it and of the guest; each for one."""
    mode = [f"depth={depth}", *each.split(), where]
    with Guest(f"read n={n} times=2 " + " ".join(mode[:-1]), *disk(scratch("reads", 64 << 20))) as g:
        g.ready()
        g.measure()  # into the page cache, or what there is of a file with holes
        thread = device_thread(g.pid)
        k = guest_process(g.pid)
        if where == "apart":
            apart(g.pid)
        with SystemCalls(thread) as calls:
            before = calls.count(), switches(g.pid)[thread], sum(switches(k).values())
            ns, _ = g.measure()
            after = calls.count(), switches(g.pid)[thread], sum(switches(k).values())
        g.finish()
    per = [(b - a) / n for a, b in zip(before, after)]
    if calls.fd < 0:
        per[1] -= 2 * per[0]  # strace stops it twice for each
    say(
        f"{' '.join(mode)}: {per[0]:.3f} system calls, {per[1]:.3f} wake-ups of the disk's thread, {per[2]:.3f} of the guest, "
        f"{ns / n / 1000:.2f} us a request (counted by {calls.how})"
    )
    return per


@test
def system_calls_and_wake_ups_of_a_request():
    costs(1, 5000)
    for each in ("", "each"):
        for where in ("anywhere", "apart"):
            calls, host, guest = costs(32, 20000, each, where)
            expect(0 < calls <= 0.2, "system calls:", calls)
            expect(host <= 0.2 and guest <= 0.2, "wake-ups:", host, guest)


def round_trips(n, where):
    """Wake-ups of anything during a ping."""
    with Guest(f"ping n={n} times=2", "--net", "user") as g:
        g.ready()
        g.measure()
        k = guest_process(g.pid)
        if where == "apart":
            apart(g.pid)
        before = {**switches(g.pid), **switches(k)}
        ns, _ = g.measure()
        of_guest = switches(k)
        after = {**switches(g.pid), **of_guest}
        thread = device_thread(g.pid)
        g.finish()
    per = {t: (after[t] - before[t]) / n for t in after}
    total, guest = sum(per.values()), sum(per[t] for t in of_guest)
    say(f"{where}: {total:.2f} wake-ups, {per[thread]:.2f} of the card's thread, {guest:.2f} of the guest; {ns / n / 1000:.1f} us")
    return total


@test
def wake_ups_of_a_ping():
    for where in ("anywhere", "apart"):
        total = round_trips(200, where)
        expect(0 < total <= 3, "wake-ups:", total)


# Memory


def rss(pid):
    return status_of(pid, "VmRSS")


def flat(pid, before, what):
    """KiB of growth, which are few."""
    grown = rss(pid) - before
    say(f"{what}: {before} KiB, {grown:+d}")
    expect(grown <= 1024, what, "grew the host by", grown, "KiB, from", before)


@test
def memory_is_flat_under_a_flood_of_requests():
    with Guest("read n=100000 times=3", *disk(scratch("flood", 16 << 20))) as g:
        g.ready()
        g.measure()
        before = rss(g.pid)
        g.measure()
        g.measure()
        flat(g.pid, before, "200000 reads")
        g.finish()


@test
def memory_is_flat_under_a_flood_of_frames():
    with Guest("tx n=20000 times=11", "--net", "user") as g:
        g.ready()
        g.measure()
        before = rss(g.pid)
        for _ in range(10):
            g.measure()
        flat(g.pid, before, "200000 frames sent")
        g.finish()


@test
def memory_is_flat_under_a_flood_from_outside():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Guest("rx times=2", "--net", f"user,hostfwd=udp:127.0.0.1:{port}-:7") as g, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as s:
        s.connect(("127.0.0.1", port))

        def flood(n):
            for _ in range(n):
                try:
                    s.send(bytes(1400))
                except (ConnectionRefusedError, BlockingIOError):
                    pass

        g.ready()
        # Nobody receives: up to the backlog it is kept, and no further.
        flood(10000)
        before = rss(g.pid)
        flood(100000)
        flat(g.pid, before, "100000 datagrams to a guest that does not look")
        g.go()
        flood(100000)
        got = int(g.await_match(rb"done \d+ got (\d+)\nready\n")[1])
        flat(g.pid, before, f"100000 to one that does, which had {got} in all")
        expect(got > 1000, "the guest received", got)
        g.measure()
        g.finish()


def host_memory(mode, *options):
    """KiB of the host once it is ready, and of these the guest's memory; the same after it was used."""
    with Guest(mode, *options) as g:
        g.ready()
        before = rss(g.pid), status_of(g.pid, "RssShmem")
        g.measure()
        after = rss(g.pid), status_of(g.pid, "RssShmem")
        g.finish()
    return before, after


@test
def memory_of_a_device():
    base, base_used = host_memory("idle")
    for what, most, mode, options in (
        ("a disk", 1024, "read n=2000", disk(scratch("one", 16 << 20))),
        ("a network card", 3072, "ping n=200", ["--net", "user"]),
        ("random numbers", 512, "idle", ["--rng"]),
        ("a console", 512, "idle", ["--console", "file=console"]),
    ):
        before, after = host_memory(mode, *options)
        own = after[0] - after[1] - (base_used[0] - base_used[1])
        say(f"{what}: {before[0] - base[0]} KiB; used, {after[0] - base_used[0]} KiB, without the guest's memory {own} KiB")
        expect(own <= most, what, "takes", own, "KiB")


# Lives


@test
def twenty_lives():
    lives = 20
    path = scratch("lives")
    seen = []
    with Guest(f"life n={lives}", *disk(path), "--net", "user", "--rng") as g:
        for life in range(1, lives + 1):
            said = g.await_match(rb"life (\d+)\nready\n")
            expect(int(said[1]) == life, "life", life, "is", said[1], "on the disk")
            seen.append((len(os.listdir(f"/proc/{g.pid}/fd")), len(threads(g.pid))))
            if life < lives:
                g.go()
        g.finish()
    say(f"{seen[0][0]} descriptors and {seen[0][1]} threads in the first life, {seen[-1][0]} and {seen[-1][1]} in the last")
    expect(seen[1] == seen[-1] and seen[0] == seen[-1], "descriptors and threads of each life:", seen)
    with open(path, "rb") as f:
        expect(struct.unpack("<Q", f.read(8))[0] == lives, "what the disk counted")


@test
def a_disk_is_free_again():
    """For the next keel, at once, whatever the end of the last: with requests under way as well."""
    path = scratch("again", 16 << 20)
    for i in range(20):
        with Guest("mixed", *disk(path)) as g:
            g.ready()
            time.sleep(rng.random() * 0.01)
            g.send_signal(signal.SIGTERM if i % 2 else signal.SIGKILL)
            g.communicate(timeout=10)
    with Guest("idle", *disk(path)) as g:
        g.ready()
        done = subprocess.run([KEEL, "run", "--core", "none", *disk(path), GUEST], capture_output=True, timeout=LIMIT, check=False)
        expect(done.returncode == 126 and b"in use" in done.stderr, "two at a time:", done.returncode, done.stderr)
        g.measure()
        g.finish()


@test
def stopped_in_the_middle():
    slowest = 0.0
    for i in range(10):
        path = scratch("stop", 64 << 20)
        with Guest("mixed", *disk(path), *["--net", "user"][: i % 2 * 2]) as g:
            g.ready()
            time.sleep(0.02 + rng.random() * 0.05)
            since = time.monotonic()
            g.send_signal(signal.SIGTERM)
            g.communicate(timeout=10)
            slowest = max(slowest, time.monotonic() - since)
            expect(g.returncode not in (0, 126), "exit status", g.returncode)
    say(f"the slowest of 10 took {slowest * 1000:.0f} ms")
    expect(slowest <= 2, "SIGTERM took", slowest, "s")


# Options


@test
def errors_in_options():
    small, good = scratch("small", SECTOR - 1), scratch("good")
    cases = [
        (["--disk", "file=none"], "--disk"),
        (["--disk", "file=."], "--disk"),
        (["--disk", "file=.,ro"], "--disk"),
        (["--disk", "file=/dev/null"], "--disk"),
        (["--disk", "file=" + good + ",fast"], "--disk"),
        (["--disk", good], "--disk"),
        (["--disk", "ro"], "--disk"),
        (["--disk", "file="], "--disk"),
        (["--disk", ""], "--disk"),
        ([*disk(good), *disk(good)], "--disk"),
        ([*disk(good), "--disk", f"file={good},ro"], "--disk"),
        (disk(small), "--disk"),
        (["--net", "nonsense"], "--net"),
        (["--net", ""], "--net"),
        (["--net", "user,nonsense"], "--net"),
        (["--net", "user,hostfwd=tcp:1.2.3.4"], "--net"),
        (["--net", "tap="], "--net"),
        (["--console", "nonsense"], "--console"),
        (["--rng"] * 9, "--rng: more than 8 devices"),
        ([*["--rng"] * 8, *disk(good)], "--disk: more than 8 devices"),
    ]
    for options, names in cases:
        done = subprocess.run([KEEL, "run", "--core", "none", *options, GUEST], capture_output=True, timeout=LIMIT, check=False)
        err = done.stderr.decode()
        expect(done.returncode == 126, options, "exit status", done.returncode, err)
        expect(err.startswith("keel: ") and err.count("\n") == 1 and names in err, options, "said", err)
    # Two readers are fine.
    with Guest("idle", "--disk", f"file={good},ro", "--disk", f"file={good},ro") as g:
        g.ready()
        g.measure()
        g.finish()


def nothing_is_left():
    """Orphans come to us."""
    end = time.monotonic() + 5
    while left := children(os.getpid()):
        if os.waitpid(-1, os.WNOHANG)[0]:
            continue
        expect(time.monotonic() < end, "processes are left:", [read_proc(p, "comm") for p in left])
        time.sleep(0.01)


def main():
    names = sys.argv[4:]
    tests = LONG if names == ["long"] else [t for t in TESTS + LONG if t.__name__ in names] if names else TESTS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of everybody who cleans up
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    say("seed", SEED)
    return run_tests(tests + [nothing_is_left])


sys.exit(main())
