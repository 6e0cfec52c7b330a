#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""keel run from outside: exit statuses, the terminal, crashes, floods. KTAP on stdout.

usage: run_test.py KEEL GUEST [TEST...]

Guests of several vCPUs are smp.elf, beside GUEST.

KEEL_TEST_BACKEND in the environment names the backend that runs every guest.
"""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

from outside import TESTS, Skip, await_output, children, expect, expect_status, read_proc, run_tests, test

KEEL, GUEST = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
LIMIT = 30  # seconds any one guest may take
BACKEND = ["--backend", os.environ["KEEL_TEST_BACKEND"]] if "KEEL_TEST_BACKEND" in os.environ else []


def command(mode, *options):
    return [KEEL, "run", "--cmdline", mode, *BACKEND, *options, GUEST]


def run(mode, *options, stdin=subprocess.DEVNULL):
    kind = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(command(mode, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT, **kind)


class Popen(subprocess.Popen):
    """One that does not outlive a test that failed, which would wait for it."""

    def __exit__(self, exc_type, value, traceback):
        if exc_type:
            self.kill()
        return super().__exit__(exc_type, value, traceback)


def guest_process(pid):
    """The processes the host started: those of user code and the one they come from, the guest kernel's, the keeper.
    The probe of --backend auto is gone in a moment, and none of them."""
    mine = [p for p in children(pid) if read_proc(p, "comm") != "keel-probe\n"]
    return [p for c in mine for p in guest_process(c)] + mine


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@test
def exit_status():
    for code in (0, 1, 7, 123):
        done = run(f"exit {code}")
        expect_status(done, code)
        expect(done.stderr == b"", done.stderr)


@test
def usage_errors():
    for args, says in (
        (["run"], "no image given"),
        (["run", "--bogus", "x"], "unknown option --bogus"),
        (["run", "--mem", "3M", "x"], "--mem 3M: not a multiple of 2M"),
        (["run", "/nonexistent.elf"], "/nonexistent.elf: No such file"),
        (["run", "/dev/null"], "not a regular file"),
        (["run", KEEL], "keel: "),
        (["fly"], 'no verb "fly"'),
        (["help", "fly"], 'no verb "fly"'),
        (["version", "x"], "takes no arguments"),
    ):
        done = subprocess.run([KEEL, *args], capture_output=True, timeout=LIMIT, check=False)
        expect_status(done, 126)
        err = done.stderr.decode()
        expect(says in err and err.count("\n") == 1 and err.startswith("keel: "), args, "said", err)
    done = run("exit 0", "--mem", "2M")
    expect_status(done, 126)
    expect(b"use a larger --mem" in done.stderr or b"use --mem" in done.stderr, done.stderr)


@test
def help_and_version():
    for args, says in ((["help"], "Verbs:"), (["help", "run"], "--timeout SECONDS"), (["run", "--help"], "--mem SIZE"),
                       (["help", "probe"], "kvm.verdict"), (["probe", "--help"], "--json"),
                       (["version"], "ABI 1.0"), (["--help"], "Verbs:"), (["--version"], "ABI 1.0")):
        done = subprocess.run([KEEL, *args], capture_output=True, timeout=LIMIT, check=False)
        expect_status(done, 0)
        expect(says in done.stdout.decode(), args, done.stdout)


@test
def damaged_images():
    with open(GUEST, "rb") as f:
        good = f.read()
    for name, bad in (("cut", good[:100]), ("empty", b""), ("text", b"hello, world\n" * 20),
                      ("machine", good[:18] + b"\x03\x00" + good[20:]), ("half", good[: len(good) // 16])):
        with open(name, "wb") as f:
            f.write(bad)
        done = subprocess.run([KEEL, "run", name], capture_output=True, timeout=LIMIT, check=False)
        expect_status(done, 126)
        expect(done.stderr.startswith(b"keel: " + name.encode() + b": ") and done.stderr.count(b"\n") == 1, done.stderr)


FRAMES = ("fault_inner", "fault_middle", "do_fault", "keel_main")


@test
def crash_report():
    done = run("fault")
    expect_status(done, 125)
    err = done.stderr.decode()
    expect(re.search(r"keel: crash: .*(page fault|#PF).*0x123450000", err), err)
    expect(re.search(r"rip [0-9a-f]{16}", err) and "r15 " in err, err)
    expect("base_freeze() = OK" in err, err)
    at = 0
    for frame in FRAMES:
        at = err.find(frame, at)
        expect(at >= 0, "no frame", frame, "in order in", err)
    expect("next: gdb" in err, err)
    expect(all(line.startswith("keel:") for line in err.splitlines()), err)


@test
def crash_core():
    if not shutil.which("gdb"):
        raise Skip("no gdb")
    done = run("fault")
    core = os.path.basename(GUEST) + ".core"
    expect(os.path.exists(core), "no", core, done.stderr.decode())
    out = subprocess.run(["gdb", "-nx", "-batch", "-ex", "bt", "-ex", "info registers rdi", GUEST, core],
                         capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL).stdout.decode()
    for number, frame in enumerate(FRAMES):
        expect(re.search(rf"^#{number} .*\b{frame}\b", out, re.M), "no frame", frame, "in", out)
    expect("0x123450000" in out, out)
    os.unlink(core)


@test
def core_option():
    run("fault", "--core", "none")
    expect(not [n for n in os.listdir(".") if n.endswith("core")], os.listdir("."))
    done = run("big", "--core", "here.core")
    st = os.stat("here.core")
    expect(st.st_size > 8 << 20 and st.st_blocks * 512 < 1 << 20, "size", st.st_size, "blocks", st.st_blocks)
    expect(b"here.core" in done.stderr, done.stderr)
    os.unlink("here.core")
    done = run("fault", "--core", "/nonexistent/core")
    expect_status(done, 125)
    expect(b"cannot write the core /nonexistent/core" in done.stderr and b"addr2line" in done.stderr, done.stderr)


@test
def forbidden_system_call():
    done = run("syscall", "--core", "none")
    expect_status(done, 125)
    expect(b"system call" in done.stderr and b"do_syscall" in done.stderr, done.stderr)


@test
def wild_jump_and_looping_frames():
    done = run("jump", "--core", "none")
    expect_status(done, 125)
    expect(b"do_jump" in done.stderr, done.stderr)
    done = run("frames", "--core", "none")
    expect_status(done, 125)
    expect(b"do_frames" in done.stderr and done.stderr.count(b"#") < 10, done.stderr)


@test
def guest_panic():
    done = run("panic", "--core", "none")
    expect_status(done, 125)
    expect(b"panic (reason 0)" in done.stderr and b"the test said so, with .[31m in it" in done.stderr, done.stderr)
    expect(b"\033" not in done.stderr, "an escape sequence of the guest's in the report")
    expect(b"do_panic" in done.stderr, done.stderr)


@test
def timeout():
    for mode in ("spin", "idle"):
        start = time.monotonic()
        done = run(mode, "--timeout", "1")
        expect_status(done, 124)
        expect(1 <= time.monotonic() - start < 5, "took", time.monotonic() - start)
        expect(b"did not end within 1 s" in done.stderr and f"do_{mode}".encode() in done.stderr, done.stderr)


@test
def signals_end_everything():
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Popen(command("idle"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
            await_output(p.stdout, b"idle\n")
            children = guest_process(p.pid)
            expect(children, "no guest process seen")
            p.send_signal(sig)
            expect(p.wait(LIMIT) == -sig, "ended with", p.returncode)
            expect(not any(alive(c) for c in children), "the guest lives on")


@test
def killed_host_takes_guest_along():
    with Popen(command("spin"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"spinning\n")
        children = guest_process(p.pid)
        p.kill()
        p.wait()
        end = time.monotonic() + 5
        while any(alive(c) for c in children):
            expect(time.monotonic() < end, "the guest outlives its host")
            time.sleep(0.05)


@test
def killed_guest_is_reported():
    with Popen(command("idle", "--core", "none"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"idle\n")
        os.kill(guest_process(p.pid)[-2], signal.SIGKILL)
        _, err = p.communicate(timeout=LIMIT)
        expect(p.returncode == 125 and b"crash: " in err, p.returncode, err)


LINES = b"".join(b"line %d of the numbered lines\n" % i for i in range(3000))


@test
def output_is_whole():
    for mode in ("lines", "lines ring"):
        done = run(mode)
        expect_status(done, 0)
        expect(done.stdout == LINES, mode, "gave", len(done.stdout), "bytes instead of", len(LINES))
        with open("out", "wb") as f:
            subprocess.run(command(mode), stdout=f, stdin=subprocess.DEVNULL, timeout=LIMIT, check=True)
        with open("out", "rb") as f:
            expect(f.read() == LINES, mode, "into a file")


@test
def slow_reader_loses_nothing():
    for mode in ("lines", "lines ring"):
        with Popen(command(mode), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
            time.sleep(0.2)  # let everything fill up
            got = b""
            while True:
                more = os.read(p.stdout.fileno(), 997)
                if not more:
                    break
                got += more
                if len(got) % 20 == 0:
                    time.sleep(0.002)
            expect(p.wait(LIMIT) == 0 and got == LINES, mode, "gave", len(got), "bytes")


@test
def closed_stdout():
    for mode in ("lines", "lines ring"):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(command(mode), stdout=write, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT,
                              check=False)
        os.close(write)
        expect_status(done, 0)
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command("exit 5")], timeout=LIMIT, check=False)
    expect(done.returncode == 5, done.returncode)


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))


@test
def floods_keep_memory_flat():
    for mode in ("flood", "ringflood"):
        for reader in (False, True):
            out = subprocess.DEVNULL if reader else subprocess.PIPE
            with Popen(command(mode), stdout=out, stdin=subprocess.DEVNULL) as p:
                time.sleep(0.3)
                before = resident(p.pid)
                time.sleep(0.7)
                after = resident(p.pid)
                expect(after - before < 64, mode, "grew from", before, "to", after, "KiB")
                # Full or not, the host hears what it is told.
                p.terminate()
                expect(p.wait(5) == -signal.SIGTERM, p.returncode)
                if p.stdout:
                    p.stdout.close()


@test
def timeout_under_flood():
    for mode in ("flood", "ringflood"):
        with Popen(command(mode, "--timeout", "1"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL) as p:
            expect(p.wait(6) == 124, mode, p.returncode)


@test
def input_from_a_pipe():
    data = bytes(range(32, 113)) * 100  # without a q
    done = run(f"echo {len(data)}", stdin=data)
    expect_status(done, 0)
    expect(done.stdout == b"echo\n" + data, len(done.stdout), "bytes of", len(data) + 5)
    with open("in", "wb") as f:
        f.write(data)
    with open("in", "rb") as f:
        done = run(f"echo {len(data)}", stdin=f)
    expect(done.stdout == b"echo\n" + data, "from a file:", len(done.stdout), "bytes")


@test
def input_is_left_alone():
    """A guest that reads nothing takes nothing from whoever comes next on the same stdin."""
    done = subprocess.run(["sh", "-c", '"$@"; cat', "sh", *command("exit 0")], input=b"for cat", capture_output=True,
                          timeout=LIMIT, check=False)
    expect(done.stdout == b"for cat", done.stdout)


@test
def bad_ring():
    done = run("badring")
    expect_status(done, 0)
    expect(done.stdout == b"still here\n", done.stdout)
    expect(done.stderr.count(b"its ring is dropped") == 1, done.stderr)


@test
def restart():
    done = run("restart", "--timeout", "1", "--verbose")
    expect_status(done, 124)
    expect(done.stdout.count(b"life\n") > 3, done.stdout)
    expect(b"restarts with code 7" in done.stderr, done.stderr)


@test
def stats():
    done = run("lines", "--stats")
    expect_status(done, 0)
    row = re.search(rb"console_write +(\d+) +(\d+) +(\d+)", done.stderr)
    expect(row, done.stderr)
    expect(int(row[1]) >= 3000 and int(row[2]) == 0 and int(row[3]) == len(LINES), row[0])


def high_water(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


@test
def small_and_quick():
    """At most 6 MiB beyond guest RAM touched, of which there is next to none here. Time: gross mistakes only."""
    with Popen(command("idle"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"idle\n")
        used = sum(high_water(q) for q in [p.pid, *guest_process(p.pid)])
        p.terminate()
    expect(used <= 6 << 10, used, "KiB")
    start = time.monotonic()
    run("exit 0")
    expect(time.monotonic() - start < 1, "took", time.monotonic() - start)


def wakeups(pid):
    total = 0
    for p in [pid, *guest_process(pid)]:
        for task in os.listdir(f"/proc/{p}/task"):
            with open(f"/proc/{p}/task/{task}/status", encoding="ascii") as f:
                total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
    return total


@test
def idle_is_quiet():
    """An idle partition wakes up at most once a second, host and guest together."""
    with Popen(command("idle"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"idle\n")
        time.sleep(1.5)
        before = wakeups(p.pid)
        time.sleep(4)
        count = wakeups(p.pid) - before
        p.terminate()
        expect(count <= 4, count, "wake-ups in 4 s")


SMP = (1, 2, 4, 16)


def smp(job, vcpus, *options):
    """Run smp_guest.c: its exit code is 0, or it says why not."""
    done = subprocess.run([KEEL, "run", "--cmdline", job, "--vcpus", str(vcpus), *BACKEND, *options,
                           os.path.join(os.path.dirname(GUEST), "smp.elf")],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=2 * LIMIT)
    return done


def smp_ends_well(job, vcpus):
    done = smp(job, vcpus, "--timeout", str(LIMIT), "--core", "none")
    expect(done.returncode == 0, job, "with", vcpus, "vCPUs: exit status", done.returncode, done.stdout.decode(),
           done.stderr.decode())


@test
def user_code_stops_in_every_way():
    """user_guest.c on as many vCPUs, with every processor to run on and with one."""
    guest = os.path.join(os.path.dirname(GUEST), "user_guest.elf")
    one = {min(os.sched_getaffinity(0))}
    for vcpus, processors in ((1, None), (2, None), (16, None), (1, one)):
        done = subprocess.run([KEEL, "run", "--vcpus", str(vcpus), *BACKEND, "--timeout", str(LIMIT), "--core", "none", guest],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=2 * LIMIT,
                              preexec_fn=(lambda: os.sched_setaffinity(0, processors)) if processors else None)
        expect(done.returncode == 0, vcpus, "vCPUs: exit status", done.returncode,
               [line for line in done.stdout.decode().splitlines() if not line.startswith("ok")], done.stderr.decode())


@test
def vcpus_start_and_stop():
    for vcpus in SMP:
        smp_ends_well("start 1000" if vcpus < 16 else "start 200", vcpus)
        smp_ends_well(f"stop {1000 // vcpus ** 2 + 1}", vcpus)


@test
def vcpus_wake_each_other():
    for vcpus in SMP:
        smp_ends_well("ring 2000" if vcpus < 16 else "ring 500", vcpus)
        smp_ends_well("storm 10000" if vcpus < 16 else "storm 2000", vcpus)


@test
def vcpus_share_processors():
    for vcpus in SMP:
        smp_ends_well("yield 1000", vcpus)
        smp_ends_well("timers 200", vcpus)
        smp_ends_well("ping 1000", vcpus)


@test
def vcpus_end_together():
    for vcpus in SMP:
        done = smp("crash", vcpus, "--core", "none")
        expect(done.returncode == 125 and b"trap 6" in done.stderr, vcpus, "vCPUs: exit status", done.returncode,
               done.stderr.decode())
        done = smp("spin", vcpus, "--timeout", "1")
        expect(done.returncode == 124, vcpus, "vCPUs: exit status", done.returncode, done.stderr.decode())


@test
def idle_vcpus_are_quiet():
    """Four vCPUs asleep: at most one wake-up a second, host and guest together."""
    guest = os.path.join(os.path.dirname(GUEST), "smp.elf")
    with Popen([KEEL, "run", "--cmdline", "idle", "--vcpus", "4", *BACKEND, guest], stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"idle\n")
        time.sleep(1.5)
        before = wakeups(p.pid)
        time.sleep(4)
        count = wakeups(p.pid) - before
        p.terminate()
        expect(count <= 4, count, "wake-ups in 4 s")


def keel(*args, before=()):
    return subprocess.run([*before, KEEL, *args], capture_output=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)


def probe(before=()):
    done = keel("probe", "--json", before=before)
    expect_status(done, 0)
    expect(done.stderr == b"", done.stderr)
    return json.loads(done.stdout)


# What two probes of one machine may tell differently.
MEASURED = ("why", "text", "slowdown", "exit_us", "ioeventfd_us", "kernel_exit_us")


@test
def probe_json_and_text():
    """The same facts in both, nothing in one that is not in the other, and all of it in the help."""
    found = probe()
    done = keel("probe")
    expect_status(done, 0)
    expect(done.stderr == b"", done.stderr)
    text = re.sub(r"\n {20,}", " ", done.stdout.decode())
    lines = [re.match(r"  (\S.*?|  with WP_ASYNC)  +(.*)", line).groups() for line in text.splitlines() if line[:2] == "  "]
    values = []
    for group in [k for k in found if k != "schema"]:
        for key, value in found[group].items():
            if (group, key) != ("kvm", "verdict"):  # in words only
                values.append((key, value))
    expect(len(lines) == len(values), len(lines), "lines for", len(values), "values:", text)
    for (label, said), (key, value) in zip(lines, values):
        if key in MEASURED:
            expect((said == "-") == (value is None), label, said, key, value)
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, list):
            value = ", ".join(value) if value else "none"
        expect(said == ("-" if value is None else str(value)), label, said, key, value)
    expect(found["schema"] == 1 and found["kernel"]["release"] == os.uname().release, found)
    help_text = keel("help", "probe").stdout.decode()
    for group in [k for k in found if k != "schema"]:
        for key in found[group]:
            expect(f"  {group}.{key} " in help_text, "no help for", group, key)


@test
def probe_usage():
    for args, says in ((["x"], 'takes no arguments: "x"'), (["--bogus"], "unknown option --bogus"),
                       (["--json=1"], "--json takes no value")):
        done = keel("probe", *args)
        expect_status(done, 126)
        expect(says in done.stderr.decode() and done.stdout == b"", args, done.stderr)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([KEEL, "probe"], stdout=full, stderr=subprocess.PIPE, timeout=LIMIT, check=False)
    expect(done.returncode != 0 and b"No space left" in done.stderr, done)


@test
def auto_follows_the_probe():
    """What `auto` takes is what the probe says, and what it says of kvm decides what `--backend kvm` says."""
    found = probe()
    done = run("exit 3", "--verbose")
    expect_status(done, 3)
    said = done.stderr.decode()
    expect(re.search(rf"^keel: backend {found['auto']['backend']}, chosen because kvm \S", said, re.M), found["auto"], said)
    verdict = found["kvm"]["verdict"]
    expect(re.search(rf"chosen because kvm {found['kvm']['text'].split(',')[0].split(':')[0]}", said), found["kvm"], said)
    done = run("exit 3", "--backend", "kvm")
    if verdict == "interprets":
        expect_status(done, 3)
        expect(re.fullmatch(rb"keel: kvm interprets: CPL 0 code runs \d+ times slower than native\n", done.stderr),
               done.stderr)
    elif verdict == "hardware":
        expect_status(done, 3)
        expect(b"kvm" not in done.stderr, done.stderr)
    else:
        expect_status(done, 127)
        expect(b"asked for was kvm: kvm " in done.stderr, done.stderr)
    expect_status(run("exit 3", "--backend", "ring3"), 3)


def with_dev(script):
    """A command that runs another where /dev has what it needs and as KVM what a script makes of $dev/kvm. Its root has
    no power over files."""
    setup = f"""
        dev=$(pwd)/dev.$$
        mkdir "$dev" && mount -t tmpfs dev "$dev" && touch "$dev/null" && mount --bind /dev/null "$dev/null" || exit 99
        {script}
        mount --rbind "$dev" /dev || exit 99
        exec setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -all "$@" """
    return ("unshare", "-rm", "sh", "-c", setup, "sh")


UNUSABLE = (
    (":", "absent", "is absent: there is no /dev/kvm"),
    ('touch "$dev/kvm"; chmod 0 "$dev/kvm"', "denied", "is not ours: no permission to open /dev/kvm"),
    ('touch "$dev/kvm"', "fails", "fails asking for its version: Inappropriate ioctl for device"),
    ('ln -s null/kvm "$dev/kvm"', "absent", "is absent: there is no /dev/kvm"),
)


@test
def unusable_kvm_is_told_apart():
    for script, verdict, text in UNUSABLE:
        before = with_dev(script)
        found = probe(before)
        expect(found["kvm"]["verdict"] == verdict and found["kvm"]["text"] == text, script, found["kvm"])
        expect(found["kvm"]["slowdown"] is None and found["kvm"]["sse"] is None, found["kvm"])
        expect(found["auto"] == {"backend": "ring3", "why": "kvm " + text}, found["auto"])
        done = subprocess.run([*before, *command("exit 7")], capture_output=True, timeout=LIMIT, check=False)
        expect_status(done, 7)
        expect(b"kvm" not in done.stderr, done.stderr)
        done = subprocess.run([*before, *command("exit 7", "--verbose")], capture_output=True, timeout=LIMIT, check=False)
        expect(f"keel: backend ring3, chosen because kvm {text}\n".encode() in done.stderr, done.stderr)
        done = subprocess.run([*before, *command("exit 7", "--backend", "kvm")], capture_output=True, timeout=LIMIT,
                              check=False)
        expect_status(done, 127)
        expect(done.stderr.decode() == f"keel: no backend can run this guest here; asked for was kvm: kvm {text}\n",
               done.stderr)


@test
def forbidden_kvm_is_told_apart():
    """A device cgroup, as containers have. Only where this user may make one of version 1; the verdict is unit tested."""
    devices = "/sys/fs/cgroup/devices"
    if not os.path.exists("/dev/kvm") or not os.access(devices + "/devices.deny", os.W_OK):
        return
    group = f"{devices}/keel-test.{os.getpid()}"
    os.mkdir(group)
    try:
        with open(group + "/devices.deny", "w", encoding="ascii") as f:
            f.write("c 10:232 rwm")
        found = probe(("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"))
        expect(found["kvm"]["verdict"] == "forbidden", found["kvm"])
        expect(found["auto"]["backend"] == "ring3", found["auto"])
    finally:
        os.rmdir(group)


@test
def probe_leaves_nothing():
    """The child that runs the probe's guest is reaped by a host that goes on, and dies with one that does not."""
    with Popen(command("idle"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
        await_output(p.stdout, b"idle\n")
        end = time.monotonic() + 5
        while any(read_proc(c, "comm") == "keel-probe\n" for c in children(p.pid)):
            expect(time.monotonic() < end, "the probe was not reaped")
            time.sleep(0.02)
        p.terminate()
    if probe()["kvm"]["api"] is None:
        return  # no KVM, no child
    for _ in range(20):
        with Popen([KEEL, "probe"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as p:
            seen = []
            while not seen and p.poll() is None:
                seen = children(p.pid)
            p.kill()
        end = time.monotonic() + 5
        while any(alive(c) for c in seen):
            expect(time.monotonic() < end, "the probe outlives its host")
            time.sleep(0.02)
        if seen:
            return
    raise AssertionError("no child seen")


class Terminal:
    """keel run on a terminal of its own."""

    def __init__(self, mode, *options):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.close(self.master)
            os.dup2(self.slave, 0)
            os.dup2(self.slave, 1)
            os.dup2(self.slave, 2)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.execv(KEEL, command(mode, *options))
        self.text = b""

    def wait_for(self, text):
        end = time.monotonic() + LIMIT
        while text not in self.text:
            expect(time.monotonic() < end, "no", text, "but", self.text)
            if select.select([self.master], [], [], 0.2)[0]:
                self.text += os.read(self.master, 4096)

    def type(self, keys):
        os.write(self.master, keys)

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def end(self):
        """Wait; the terminal must be as it was. Returns the exit code, negative for a signal."""
        end = time.monotonic() + LIMIT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("did not end")
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 4096)
        after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        expect(after == self.before, "the terminal was left changed:", after, self.before)
        return os.waitstatus_to_exitcode(status)


@test
def terminal_keys():
    t = Terminal("echo 1000")
    t.wait_for(b"echo\r\n")
    expect(t.raw(), "not raw")
    t.type(b"hello\001\001\003\032")
    t.wait_for(b"hello\001\003\032")
    t.type(b"\001h")
    t.wait_for(b"Ctrl-A x")
    t.type(b"\001z.")  # no such key: nothing, and the next is the guest's again
    t.wait_for(b".")
    t.type(b"q")
    expect(t.end() == 0, "exit status")


@test
def terminal_quit():
    for mode, said in (("idle", b"idle"), ("spin", b"spinning"), ("ringflood", b"xyz"), ("flood", b"xyz")):
        t = Terminal(mode)
        t.wait_for(said)
        t.type(b"\001x")
        expect(t.end() == 0, mode, "exit status")


@test
def terminal_restored():
    for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT):
        t = Terminal("idle")
        t.wait_for(b"idle")
        expect(t.raw(), "not raw")
        os.kill(t.pid, sig)
        expect(t.end() == -sig, sig)
    t = Terminal("fault", "--core", "none")
    expect(t.end() == 125, "a crash")
    t = Terminal("idle", "--timeout", "1")
    expect(t.end() == 124, "a timeout")


@test
def terminal_dump():
    t = Terminal("dump")
    t.wait_for(b"idle")
    t.type(b"\001d")
    t.wait_for(b"dump class 2")
    expect(t.end() == 9, "exit status")
    t = Terminal("idle")  # without an entry for it nothing happens to the guest
    t.wait_for(b"idle")
    t.type(b"\001d")
    time.sleep(0.2)
    t.type(b"\001x")
    expect(t.end() == 0, "exit status")


@test
def terminal_size():
    t = Terminal("size")
    t.wait_for(b"size 0x0")
    fcntl.ioctl(t.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    t.wait_for(b"size 33x77")
    t.type(b"\001x")
    expect(t.end() == 0, "exit status")


@test
def terminal_suspend():
    t = Terminal("idle")
    t.wait_for(b"idle")
    os.kill(t.pid, signal.SIGTSTP)
    _, status = os.waitpid(t.pid, os.WUNTRACED)
    expect(os.WIFSTOPPED(status), status)
    expect(not t.raw(), "raw while stopped")
    os.kill(t.pid, signal.SIGCONT)
    end = time.monotonic() + 5
    while not t.raw():
        expect(time.monotonic() < end, "not raw again")
        time.sleep(0.02)
    t.type(b"\001x")
    expect(t.end() == 0, "exit status")


sys.exit(run_tests([t for t in TESTS if not sys.argv[3:] or t.__name__ in sys.argv[3:]]))
