#!/usr/bin/python3
"""A real disk that is full, under load: a small tmpfs that is filled and freed again.

    redis-compat/crash/full_disk.py [--server PATH] [--cycles N] [--seed N]

Whatever wal-on-error says, no write that was acknowledged under `sync` (the policy's or the
connection's own) may be lost, reads go on, INFO and the log file say what happens, and when there is
room again the log heals without anybody's help. Each cycle ends with a kill -9 and a look at the data.
"""

import argparse
import collections
import errno
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.resp import Closed, Connection, Slow, encode  # noqa: E402
from support.servers import CRABCACHE, Server  # noqa: E402
from support.tally import Tally  # noqa: E402

DISK_BYTES = 64 << 20
SEGMENT_BYTES = 1 << 20
PATIENCE_S = 60.0  # the log tries a disk that keeps failing after 2 s, 4 s, ... up to 64 s
KEYS_PER_WRITER = 20
DEPTH = 8
# Between two pipelines of a writer: the disk is to be filled by the stuffing, not by the log.
PAUSE_S = 0.002
INSIDE = "CRAB_FULL_DISK_INSIDE"  # this process is the one in the namespace of its own
# own: what half of the writers ask for by CLIENT DURABILITY.
Plan = collections.namedtuple("Plan", "name policy on_error own")
PLANS = (
    Plan("refuse under sync", "sync", "refuse", None),
    Plan("refuse under async", "async", "refuse", "sync"),
    Plan("degrade under async", "async", "degrade", "sync"),
    Plan("degrade under sync", "sync", "degrade", "sync"),
)


class Disk:
    """A tmpfs of its own. Filled up to the last byte by a file, as often as something is freed."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="crab-full-disk-"))
        self.stuffing = self.directory / "stuffing"
        self.stop = threading.Event()
        self.thread = None

    def mount(self):
        size = f"size={DISK_BYTES},mode=0777"
        line = ["mount", "-t", "tmpfs", "-o", size, "crab-full-disk", str(self.directory)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else done.stderr.strip()

    def fill(self):
        self.stop.clear()
        self.thread = threading.Thread(target=self._keep_full)
        self.thread.start()

    def _keep_full(self):
        with open(self.stuffing, "wb", buffering=0) as stuffing:
            while not self.stop.is_set():
                for step in (1 << 20, 4096):
                    try:
                        while not self.stop.is_set():
                            stuffing.write(b"\0" * step)
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                self.stop.wait(0.005)

    def free(self):
        if self.thread is not None:
            self.stop.set()
            self.thread.join()
            self.thread = None
        self.stuffing.unlink(missing_ok=True)

    def close(self):
        self.free()
        subprocess.run(["umount", str(self.directory)], capture_output=True, check=False)
        self.directory.rmdir()


class Writer(threading.Thread):
    """One connection that writes growing numbers to keys of its own."""

    def __init__(self, server, number, durability):
        super().__init__()
        self.server = server
        self.prefix = f"w{number}:".encode()
        self.durability = durability
        self.random = random.Random(number)
        self.sent = collections.Counter()
        self.acknowledged = collections.Counter()
        self.kept = collections.Counter()  # acknowledged, and to be kept whatever happened since
        self.count = 0  # acknowledged in all
        self.refused = 0
        self.closed = 0
        self.problem = None
        self.stop = threading.Event()

    def run(self):
        while not self.stop.is_set() and self.problem is None:
            try:
                with Connection(self.server.address, timeout_s=PATIENCE_S) as connection:
                    if self.durability:
                        connection.do("CLIENT", "DURABILITY", self.durability)
                    while not self.stop.is_set() and self.problem is None:
                        self.round(connection)
            except (Closed, OSError):
                self.closed += 1  # the outcome of what was under way is unknown
                time.sleep(0.01)
            except RuntimeError:
                self.stop.wait(0.05)  # no log to be durable in, at the moment
            except Slow as error:
                self.problem = f"a write hangs: {error}"

    def round(self, connection):
        writes = []
        for _ in range(DEPTH):
            key = self.random.randrange(KEYS_PER_WRITER)
            self.sent[key] += 1
            writes.append((key, self.sent[key]))
        padding = b" " * self.random.randrange(900)
        connection.send(
            b"".join(
                encode([b"SET", self.prefix + b"%d" % key, b"%d" % number + padding])
                for key, number in writes
            )
        )
        for key, number in writes:
            reply = connection.reply()
            if reply == b"+OK\r\n":
                self.acknowledged[key] = number
                self.count += 1
            elif reply.startswith(b"-MISCONF"):
                self.refused += 1
            else:
                self.problem = f"SET got {reply!r:.200}"
        self.stop.wait(PAUSE_S)


class Reader(threading.Thread):
    """Reads what nobody writes: no trouble of the disk may be seen here."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.slowest_s = 0.0
        self.reads = 0
        self.problem = None
        self.stop = threading.Event()

    def run(self):
        try:
            with Connection(self.server.address, timeout_s=10.0) as connection:
                while not self.stop.is_set():
                    began = time.monotonic()
                    value = connection.do("GET", "still")
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    self.reads += 1
                    if value != b"here":
                        self.problem = f"GET got {value!r}"
                    self.stop.wait(0.002)
        except (Closed, Slow, OSError, RuntimeError) as error:
            if not self.stop.is_set():
                self.problem = f"reads do not go on: {type(error).__name__}: {error}"


def info(server):
    with server.connect(timeout_s=20.0) as connection:
        text = connection.do("INFO", "persistence").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def wait_for(server, state):
    """Waits until INFO says so; the last it said."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        facts = info(server)
        if facts["wal_state"] == state or time.monotonic() > deadline:
            return facts
        time.sleep(0.02)


def verify(server, writers, all_of_them):
    """All that is wrong with the data after a restart. Everything acknowledged must be there: of
    every writer, or of those that were promised so."""
    problems = []
    with server.connect(timeout_s=30.0) as connection:
        for writer in writers:
            keys = sorted(writer.sent)
            values = connection.pipeline([["GET", writer.prefix + b"%d" % key] for key in keys])
            for key, value in zip(keys, values):
                number = int(value or b"0")
                strict = all_of_them or writer.durability == "sync"
                least = (writer.acknowledged if strict else writer.kept)[key]
                if not least <= number <= writer.sent[key]:
                    problems.append(
                        f"{writer.prefix.decode()}{key} is {number}, acknowledged "
                        f"{writer.acknowledged[key]}, sent {writer.sent[key]}"
                    )
                # The oracle goes on from what was found.
                writer.acknowledged[key] = writer.sent[key] = number
    return problems[:5]


def run_cycle(server, disk, plan, name, killed_while_full, rng, tally, writers):
    """Fills the disk under load, kills the server or frees the disk and then kills it."""
    reader = Reader(server)
    for each in (*writers, reader):
        each.start()
    time.sleep(rng.uniform(0.2, 0.6))
    calm = info(server)
    tally.equal(f"{name}: all is well before", calm["wal_state"], "running")
    counts = [writer.count for writer in writers]
    tally.check(f"{name}: every writer writes", all(counts), f"{counts}")
    if plan.policy == "sync":
        for writer in writers:
            writer.kept = writer.acknowledged.copy()
    disk.fill()
    trouble = {"refuse": "refusing", "degrade": "degraded"}[plan.on_error]
    facts = wait_for(server, trouble)
    tally.equal(f"{name}: INFO says so when it is full", facts["wal_state"], trouble)
    tally.check(
        f"{name}: and why", "No space left" in facts["wal_last_error"], facts["wal_last_error"]
    )
    tally.equal(f"{name}: for tools of Redis as well", facts["aof_last_write_status"], "err")
    before = [writer.count for writer in writers]
    time.sleep(1.0)
    for writer, count in zip(writers, before):
        acknowledged = writer.count - count
        if plan.on_error == "refuse" or writer.durability == "sync":
            # One pipeline may have been under way while we looked.
            tally.check(f"{name}: no OK without the disk", acknowledged <= DEPTH, f"{acknowledged}")
        else:
            tally.check(f"{name}: writes go on without the log", acknowledged > 0)
    for durability in filter(None, ("default" if plan.on_error == "refuse" else None, plan.own)):
        with server.connect() as connection:
            reply = connection.raw("CLIENT", "DURABILITY", durability)
            # Without the log nothing durable can be promised, so it is not even accepted; where
            # writes are refused anyway, each of them is.
            if not reply.startswith(b"-MISCONF"):
                reply = connection.raw("SET", "probe", "1")
            tally.check(f"{name}: but MISCONF", reply.startswith(b"-MISCONF"), f"{reply!r}")
    if not killed_while_full:
        disk.free()
        facts = wait_for(server, "running")
        tally.equal(f"{name}: heals by itself", facts["wal_state"], "running")
        tally.check(f"{name}: INFO counts it", int(facts["wal_heals"]) > int(calm["wal_heals"]))
        log = server.log()
        tally.check(f"{name}: the log file tells of the trouble", "No space left" in log)
        tally.check(f"{name}: and of its end", "works again" in log, log[-2000:])
        before = [writer.count for writer in writers]
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if all(writer.count > count for writer, count in zip(writers, before)):
                break
            time.sleep(0.01)
        counts = [writer.count - count for writer, count in zip(writers, before)]
        tally.check(f"{name}: every writer writes again", all(counts), f"{counts}")
        time.sleep(rng.uniform(0.0, 0.3))
    for each in (*writers, reader):
        each.stop.set()
    server.kill()
    disk.free()
    for each in (*writers, reader):
        each.join()
        tally.check(f"{name}: {type(each).__name__} is content", each.problem is None, each.problem)
    tally.check(f"{name}: reads go on", reader.slowest_s < 1.0, f"{reader.slowest_s:.3f} s")
    server.start()
    # What degraded was killed with may lose what it acknowledged without the log, and says so.
    all_of_them = plan.on_error == "refuse" or not killed_while_full
    problems = verify(server, writers, all_of_them)
    tally.check(f"{name}: nothing that was promised is lost", not problems, "\n  ".join(problems))


def run_plan(plan, chosen, disk, tally):
    rng = random.Random(f"{plan.name}/{chosen.seed}")
    ours = ["--wal-enabled", "yes", "--wal-sync-policy", plan.policy, "--threads", "2"]
    ours += ["--wal-on-error", plan.on_error, "--wal-dir", str(disk.directory / "wal")]
    ours += ["--wal-max-segment-size", str(SEGMENT_BYTES), "--wal-ring-size", str(1 << 20)]
    ours += ["--wal-flush-interval-ms", "50"]
    acknowledged = 0
    with Server(chosen.server, ours=ours) as server:
        with server.connect() as connection:
            connection.do("SET", "still", "here")
            connection.do("WAITAOF", "1", "0", "0")
        state = []
        for cycle in range(chosen.cycles):
            name = f"{plan.name}, cycle {cycle + 1}"
            writers = []
            for number in range(4):
                durability = plan.own if number % 2 else None
                writer = Writer(server, number, durability)
                if state:
                    writer.sent, writer.acknowledged = state[number]
                writers.append(writer)
            run_cycle(server, disk, plan, name, cycle % 2 == 1, rng, tally, writers)
            state = [(writer.sent, writer.acknowledged) for writer in writers]
            acknowledged += sum(writer.count for writer in writers)
            with server.connect() as connection:
                tally.equal(f"{name}: what was always there is", connection.do("GET", "still"), b"here")
    for left in (disk.directory / "wal").glob("*"):
        left.unlink()
    print(f"{plan.name}: {chosen.cycles} times full, {acknowledged} writes acknowledged", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--cycles", type=int, default=2, help="times that each plan fills the disk")
    parser.add_argument("--only", default="", help="plans whose names contain this")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    tally = Tally()
    disk = Disk()
    error = disk.mount()
    if error is not None:
        disk.directory.rmdir()
        if os.environ.get(INSIDE) != "1":
            # Without privileges a user may still have a file system in a namespace of his own.
            line = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv]
            status = subprocess.run(line, env={**os.environ, INSIDE: "1"}, check=False).returncode
            if status in (0, 1):
                sys.exit(status)
        tally.check("A FULL DISK WAS NOT TESTED: no small file system can be had here", False, error)
        tally.finish()
    where = "in a mount namespace of its own" if os.environ.get(INSIDE) == "1" else "mounted as root"
    print(f"disk: a tmpfs of {DISK_BYTES >> 20} MiB, {where}", flush=True)
    try:
        for plan in PLANS:
            if chosen.only in plan.name:
                run_plan(plan, chosen, disk, tally)
    finally:
        disk.close()
    tally.finish()


if __name__ == "__main__":
    main()
