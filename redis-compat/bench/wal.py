#!/usr/bin/python3
"""Measures what the log costs and how fast it brings the data back, beside redis-server.

    redis-compat/bench/wal.py [--server PATH] [--only recovery,checkpoint,...] [--scale F] [--pairs N]

Every figure is of the same run of both servers on the same machine; the table shows medians, and in
brackets the smallest and the largest ratio. --scale makes data and durations smaller, to try it.
"""

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench import measure  # noqa: E402
from bench.run import (  # noqa: E402
    NO_CHECKPOINT,
    NO_REWRITE,
    OURS_OFF,
    THEIRS_OFF,
    Bench,
    Measure,
    conditions,
    count_goals,
    figure,
    measure_sections,
    progress,
)
from support.resp import Closed, Connection, Slow, encode  # noqa: E402
from support.servers import CRABCACHE, REDIS, ROOT  # noqa: E402

SECTIONS = ("recovery", "checkpoint", "policies", "stall", "framing")
LOG_BYTES = 1 << 30
# Per value size: how much faster than redis-server's loading of its AOF the whole data is to be back.
RECOVERY_GOALS = {100: 8.0, 1024: 3.0, 65536: 1.2}
RECOVERY_RUNS = 3
CHECKPOINT_BYTES = 2 << 30
CHECKPOINT_VALUE_BYTES = 1024
LOAD_PART = 0.3  # of the maximum
STALL_S = 5.0
KEYS_READ = 10_000
KEY_BYTES = 16
RECORD_OVERHEAD_BYTES = 36  # of a log's record, about, to reckon how many make 1 GB


def fill(server, count, value_bytes):
    """Writes `count` keys of 16 bytes, in large pieces."""
    piece = max(1, min(10_000, (8 << 20) // (value_bytes + 64)))
    value = os.urandom(value_bytes // 2 + 1).hex().encode()[:value_bytes]
    head, tail = b"*3\r\n$3\r\nSET\r\n$16\r\n", b"\r\n$%d\r\n%s\r\n" % (value_bytes, value)
    with server.connect(timeout_s=300.0) as connection:
        for start in range(0, count, piece):
            part = range(start, min(start + piece, count))
            connection.send(b"".join([b"%bkey:%012d%b" % (head, i, tail) for i in part]))
            left = 5 * len(part)  # +OK and the line's end
            while left > 0:
                data = connection.socket.recv(min(left, 1 << 20))
                if not data:
                    raise Closed(b"")
                left -= len(data)


def info(server, section):
    with server.connect(timeout_s=60.0) as connection:
        text = connection.do("INFO", section).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def log_files(server):
    folder = server.directory / ("appendonlydir" if server.redis else "wal")
    return sorted(str(path) for path in folder.iterdir() if path.is_file())


def family(pid):
    """A process and its children: redis-server's BGSAVE is one."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def resident_share_bytes(pid):
    """Memory of a process and its children, what they share counted once (PSS)."""
    total = 0
    for each in family(pid):
        try:
            for line in pathlib.Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


class MemoryWatch(threading.Thread):
    """The largest memory of a server while it runs."""

    def __init__(self, server):
        super().__init__()
        self.pid = server.process.pid
        self.largest = resident_share_bytes(self.pid)
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.05):
            self.largest = max(self.largest, resident_share_bytes(self.pid))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


class WalBench(Bench):
    def tool(self, name):
        """A program that was built for this: beside the server under test, or in its usual place."""
        beside = pathlib.Path(self.chosen.server).resolve().parent / name
        return str(beside if beside.exists() else ROOT / "build" / "release" / name)

    def paced(self, server, rate, seconds, keys, value_bytes, writes, connections=50, first=0):
        """Requests per second and the percentiles 50, 99, 99.9 and 100 in microseconds."""
        line = [self.tool("paced_load"), str(server.port), str(int(rate)), f"{seconds:.2f}"]
        line += [str(connections), str(keys), str(value_bytes), str(writes), str(first)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 120, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr}")
        return [float(word) for word in done.stdout.split()]

    # --- recovery ---

    def restart(self, server, key):
        """Seconds from the start of the process to the first value, and to all of the data."""
        # Warm: from the page cache, into memory that a process before has had. On a virtual machine
        # that gives free memory back, the first touch of it costs several times the whole restart.
        self.warm(server)
        began = time.monotonic()
        server.spawn()
        first = None
        while first is None:
            try:
                with Connection(server.address, timeout_s=300.0) as connection:
                    while first is None:
                        if connection.raw("GET", key).startswith(b"$"):
                            first = time.monotonic() - began
                        else:
                            time.sleep(0.001)
            except (OSError, Closed, Slow):
                if server.process.poll() is not None:
                    raise RuntimeError(server.log()[-2000:]) from None
                time.sleep(0.0005)
        while True:
            facts = info(server, "persistence")
            if facts["loading"] == "0" and facts.get("wal_recovering", "0") == "0":
                return first, time.monotonic() - began
            time.sleep(0.01)  # to ask oftener would take a part of a core

    def warm(self, server):
        self.floor("huge", log_files(server) * 2)

    def floor(self, pages, files):
        """Seconds to read files, compute their checksums and copy them into fresh memory."""
        line = [self.tool("memory_floor"), str(os.cpu_count()), pages, *files]
        return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[0])

    def recovery(self):
        """1 GB of log, warm: first answer and all of the data, beside the AOF of the same data."""
        rows = []
        # One segment of a checkpoint would make it no recovery of a log.
        ours = ["--wal-enabled", "yes"] + NO_CHECKPOINT
        theirs = ["--appendonly", "yes"] + NO_REWRITE
        for value_bytes, goal in RECOVERY_GOALS.items():
            count = int(
                LOG_BYTES * self.chosen.scale / (value_bytes + KEY_BYTES + RECORD_OVERHEAD_BYTES)
            )
            label = f"{value_bytes} B" if value_bytes < 1024 else f"{value_bytes >> 10} KiB"
            label = f"{count:,} values of {label}"
            first = Measure(f"{label}: first answer", "s", at_most=0.1, absolute=True)
            whole = Measure(f"{label}: all data back ({goal:g} times)", "s", at_most=1 / goal)
            floors = {
                pages: Measure(
                    f"{label}: all data back over the machine's floor in {pages} pages",
                    "s",
                    at_most=1.5,
                )
                for pages in ("small", "huge")
            }
            with (
                self.server(REDIS, theirs=theirs, pin=None) as reference,
                self.server(self.chosen.server, ours, pin=None) as own,
            ):
                for server in (reference, own):
                    fill(server, count, value_bytes)
                    server.stop()
                for run in range(RECOVERY_RUNS):
                    times = []
                    for server in (reference, own):
                        key = b"key:%012d" % random.randrange(count)
                        times.append(self.restart(server, key))
                        server.stop()
                    first.add(times[0][0], times[1][0])
                    whole.add(times[0][1], times[1][1])
                    if value_bytes == max(RECOVERY_GOALS):
                        for pages, floor in floors.items():
                            self.warm(own)
                            floor.add(self.floor(pages, log_files(own)), times[1][1])
                    progress(f"{label} {run + 1}/{RECOVERY_RUNS}")
            rows += [first, whole] + [floor for floor in floors.values() if floor.pairs]
        return rows

    # --- a checkpoint under load ---

    def checkpoint(self):
        """A mixed load at 30 % of the maximum, idle and while 2 GB are written; extra memory."""
        count = int(CHECKPOINT_BYTES * self.chosen.scale / CHECKPOINT_VALUE_BYTES)
        idle_s = max(3.0, 20 * self.chosen.scale)
        ratio = Measure("p99.9 during a checkpoint over that of idle", "µs", at_most=1.2)
        beside = Measure("p99.9 during BGSAVE over idle: redis-server, for comparison", "µs")
        extra = Measure(
            "extra memory during the checkpoint (reference: BGSAVE)", "MB", at_most=64, absolute=True
        )
        took = Measure("the checkpoint took (reference: BGSAVE)", "s")
        ours = ["--wal-enabled", "yes", "--threads", "1"] + NO_CHECKPOINT
        theirs = ["--appendonly", "yes"] + NO_REWRITE
        memory, seconds = {}, {}
        for binary, row in ((REDIS, beside), (self.chosen.server, ratio)):
            with self.server(binary, ours, theirs, pin=None) as server:
                fill(server, count, CHECKPOINT_VALUE_BYTES)
                arguments = (count, CHECKPOINT_VALUE_BYTES, 50)
                rate = LOAD_PART * self.paced(server, 0, 3.0, *arguments)[0]
                memory[binary], seconds[binary] = [], []
                for run in range(3):
                    self.settle()
                    idle = self.paced(server, rate, idle_s, *arguments)
                    self.settle()
                    busy, duration_s = self.while_saving(server, rate, arguments)
                    row.add(idle[3], busy[3])
                    # By another one: to ask for the memory of 2 GB takes 30 ms and the server's own
                    # lock of its address space, which would be measured as latency.
                    before = resident_share_bytes(server.process.pid)
                    with MemoryWatch(server) as watch:
                        self.while_saving(server, rate, arguments)
                    memory[binary].append((watch.largest - before) / 1e6)
                    seconds[binary].append(duration_s)
                    progress(f"{server.name} {run + 1}/3")
        for pair in zip(memory[REDIS], memory[self.chosen.server]):
            extra.add(*(max(each, 0.1) for each in pair))
        for pair in zip(seconds[REDIS], seconds[self.chosen.server]):
            took.add(*pair)
        return [ratio, beside, extra, took]

    def settle(self):
        """What was written before is on disk, so that it does not count for what comes."""
        os.sync()
        time.sleep(1.0)

    def while_saving(self, server, rate, arguments):
        """The load's figures as long as a BGSAVE runs, and how long that was: the load ends with it,
        in pieces of two seconds."""
        latencies = []
        began = time.monotonic()
        with server.connect(timeout_s=60.0) as connection:
            connection.do("BGSAVE")
        while True:
            latencies.append(self.paced(server, rate, 2.0, *arguments))
            if info(server, "persistence")["rdb_bgsave_in_progress"] == "0":
                break
        # The worst of the pieces would be a maximum of maxima; their median is what a client meets.
        middle = [statistics.median(column) for column in zip(*latencies)]
        return middle, time.monotonic() - began

    # --- the price of a policy ---

    def policies(self):
        """SET with 50 clients: async and sync beside our own log off, and appendfsync always."""
        rows = {}
        for pipeline in (1, 16):
            rows[pipeline] = [
                Measure(f"async over log off, P={pipeline}", "/s", at_least=0.92),
                Measure(f"sync over log off, P={pipeline}", "/s", at_least=0.8),
                Measure(f"sync over appendfsync always, P={pipeline}", "/s", at_least=1.8),
            ]
            if pipeline != 1:  # the goals of sync are for one request at a time
                rows[pipeline][1].at_least = rows[pipeline][2].at_least = None

        def visit(server, pipeline):
            requests = int((150_000 if pipeline == 1 else 1_500_000) * self.chosen.scale)
            return measure.load(server, "set", pipeline, max(requests, 5000)).per_second

        def logged(policy):
            return self.server(
                self.chosen.server,
                ["--threads", "1", "--wal-enabled", "yes", "--wal-sync-policy", policy] + NO_CHECKPOINT,
            )

        always = ["--appendonly", "yes", "--appendfsync", "always"] + NO_REWRITE
        with (
            self.server(self.chosen.server, OURS_OFF + ["--threads", "1"]) as off,
            logged("async") as lazy,
            logged("sync") as strict,
            self.server(REDIS, theirs=always) as reference,
        ):
            for place, found in self.in_turn((off, lazy, strict, reference), rows, visit):
                plain, soon, now, theirs = found
                rows[place][0].add(plain, soon)
                rows[place][1].add(plain, now)
                rows[place][2].add(theirs, now)
        return [each for group in rows.values() for each in group]

    # --- a disk that stops answering ---

    def stall(self):
        """The p99 of reads, beside writers, while fdatasync does not return for five seconds.

        Under `sync` the writers have keys of their own, for a read of what is not durable has to wait,
        and no more of them than clients have under way that wait for their replies.
        """
        rows = []
        stall_s = STALL_S if self.chosen.scale >= 1 else 2.0
        stall_file = self.folder / "stall"
        stall_file.unlink(missing_ok=True)
        library = self.tool("libstall_fdatasync.so")
        wrapper = ["env", f"LD_PRELOAD={library}", f"STALL_FILE={stall_file}"]
        ours = self.chosen.server
        for binary, name, policy, first, keys_written in (
            (ours, "async", "async", 0, KEYS_READ),
            (ours, "sync, of other keys", "sync", KEYS_READ, 100),
            (REDIS, "redis-server, everysec", "async", 0, KEYS_READ),
        ):
            row = Measure(f"p99 of reads in a {stall_s:g} s stall over none ({name})", "µs")
            if binary != REDIS:
                row.at_most = 1.2
            with self.server(
                binary,
                ["--wal-enabled", "yes", "--wal-sync-policy", policy, "--threads", "1"],
                ["--appendonly", "yes", "--appendfsync", "everysec"],
                pin=None,
                wrapper=wrapper,
            ) as server:
                fill(server, KEYS_READ, 100)
                for run in range(3):
                    pair = []
                    for stalled in (False, True):
                        writer = threading.Thread(
                            target=self.paced,
                            args=(server, 1000, stall_s + 1, keys_written, 100, 100, 4, first),
                        )
                        writer.start()
                        time.sleep(0.3)
                        try:
                            if stalled:
                                stall_file.touch()
                            pair.append(self.paced(server, 5000, stall_s, KEYS_READ, 100, 0)[2])
                            if stalled and binary != REDIS:
                                self.expect_stall(server)
                        finally:
                            stall_file.unlink(missing_ok=True)
                        writer.join()
                        time.sleep(0.5)
                    row.add(*pair)
                    progress(f"{name} {run + 1}/3")
            rows.append(row)
        return rows

    def expect_stall(self, server):
        if int(info(server, "persistence")["wal_sync_stalled_ms"]) < 1000:
            raise RuntimeError("the disk answered: no sync was kept waiting")

    # --- bytes ---

    def framing(self):
        """What the log adds to a record of a SET of 100 bytes, and what is written beside the AOF."""
        count = max(20_000, int(500_000 * self.chosen.scale))
        # Database, effect, number of arguments, then each with one byte of length.
        payload_bytes = 1 + 1 + 1 + (1 + KEY_BYTES) + (1 + 100)
        rows = []
        for policy, theirs_policy in (("async", "everysec"), ("sync", "always")):
            name = f"per SET of 100 B, P=16, {policy} (reference: AOF, {theirs_policy})"
            frames = Measure(
                f"framing per record, P=16, {policy}", "B", at_most=36, absolute=True
            )
            written = Measure(f"bytes of log {name}", "B")
            disk = Measure(f"bytes given to the disk {name}", "B")
            rows += [frames, written, disk]
            aof = ["--appendonly", "yes", "--appendfsync", theirs_policy] + NO_REWRITE
            with (
                self.server(REDIS, theirs=aof) as theirs,
                self.server(
                    self.chosen.server,
                    ["--wal-enabled", "yes", "--wal-sync-policy", policy, "--threads", "1"]
                    + NO_CHECKPOINT,
                ) as own,
            ):
                found = []
                for server in (theirs, own):
                    self.write_sets(server, count)  # segments made ahead of need belong to no record
                    before = self.bytes_of(server)
                    self.write_sets(server, count)
                    after = self.bytes_of(server)
                    found.append([(b - a) / count for a, b in zip(before, after)])
                frames.add(found[0][0] - (KEY_BYTES + 100), found[1][0] - payload_bytes)
                written.add(found[0][0], found[1][0])
                disk.add(found[0][1], found[1][1])
                progress(policy)
        return rows

    def write_sets(self, server, count):
        line = ["redis-benchmark", "-p", str(server.port), "-t", "set", "-n", str(count)]
        line += ["-P", "16", "-c", "50", "-r", "100000", "-d", "100", "-q"]
        subprocess.run(line, capture_output=True, check=True)
        time.sleep(2.5)  # both sync within a second; the kernel and spare segments come after that

    def bytes_of(self, server):
        """Bytes in the log, and bytes that the process has given to the block layer."""
        if server.redis:
            logged = int(info(server, "persistence")["aof_current_size"])
        else:
            logged = int(info(server, "persistence")["wal_total_bytes"])
        counters = pathlib.Path(f"/proc/{server.process.pid}/io").read_text()
        disk = next(line for line in counters.splitlines() if line.startswith("write_bytes"))
        return logged, int(disk.split()[1])


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs where servers take turns")
    parser.add_argument("--only", default=",".join(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument("--scale", type=float, default=1.0, help="of data and durations")
    parser.add_argument(
        "--directory",
        default=str(ROOT / "build" / "bench"),
        help="where logs go: a real disk, not memory",
    )
    chosen = parser.parse_args()
    chosen.quick = False
    unknown = set(chosen.only.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return chosen


def main():
    chosen = options()
    bench = WalBench(chosen)
    marks = measure_sections(bench, chosen.only.split(","))
    print("The reference is redis-server, except where the row names another: our own log off, idle, no")
    print("stall, or the floor of the machine.\n")
    print("\n".join(conditions(chosen)))
    print(
        f"- data: {figure(LOG_BYTES * chosen.scale)} B of log from a warm page cache into memory that was in use before; checkpoint of "
        f"{figure(CHECKPOINT_BYTES * chosen.scale)} B in values of {CHECKPOINT_VALUE_BYTES} B, a load "
        f"of half reads, half writes at {LOAD_PART:.0%} of its maximum; scale {chosen.scale:g}"
    )
    count_goals(marks)


if __name__ == "__main__":
    main()
