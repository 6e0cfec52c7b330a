# SPDX-License-Identifier: MIT
"""What tests of keel run from outside have in common: processes, output, KTAP on stdout."""
import os
import re
import select
import tempfile
import time

TESTS = []


class Skip(Exception):
    """Raised with the reason a test cannot run here."""


def test(fn):
    TESTS.append(fn)
    return fn


def expect(cond, *what):
    if not cond:
        raise AssertionError(" ".join(str(w) for w in what))


def expect_status(done, status):
    expect(done.returncode == status, "exit status", done.returncode, "instead of", status, done.stderr.decode())


def say(*what):
    print("#", *what, flush=True)


def read_proc(pid, name):
    """A file of a process, nothing when there is no such process any more."""
    try:
        with open(f"/proc/{pid}/{name}", encoding="ascii") as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid):
    return [int(p) for p in read_proc(pid, f"task/{pid}/children").split()]


def status_of(pid, field, tid=None):
    found = re.search(rf"^{field}:\s+(\d+)", read_proc(pid, f"task/{tid or pid}/status"), re.M)
    expect(found, "no", field, "of", pid, tid)
    return int(found[1])


def await_output(stream, text, seconds=60):
    """Read a pipe until it said something."""
    got, end = b"", time.monotonic() + seconds
    while text not in got:
        expect(time.monotonic() < end, "no", text, "but", got[-200:])
        if select.select([stream], [], [], 1)[0]:
            more = os.read(stream.fileno(), 65536)
            expect(more, "ended after", got[-200:])
            got += more
    return got


def run_tests(tests):
    """Each in a directory of its own, which is gone afterwards; returns an exit status."""
    failed = 0
    print("KTAP version 1")
    print(f"1..{len(tests)}", flush=True)
    home = os.getcwd()
    for number, fn in enumerate(tests, 1):
        since = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="keel-test.") as where:
            os.chdir(where)
            try:
                fn()
                print(f"ok {number} {fn.__name__}", flush=True)
            except Skip as why:
                print(f"ok {number} {fn.__name__} # SKIP {why}", flush=True)
            except Exception as why:  # whatever went wrong, the test did
                failed += 1
                for line in f"{type(why).__name__}: {str(why)[:1000]}".splitlines():
                    say(line)
                print(f"not ok {number} {fn.__name__}", flush=True)
            finally:
                os.chdir(home)
        say(f"{time.monotonic() - since:.1f} s")
    return 1 if failed else 0
