#!/usr/bin/python3
"""Measures redis-server and CrabCache in turn and prints the ratios, as a Markdown table.

    redis-compat/bench/run.py [--server PATH] [--pairs N] [--quick] [--only cpu,memory,...]

A ratio is CrabCache over redis-server of the same pair of runs; the table shows the median of the
pairs and, in brackets, the smallest and the largest. Server and load have a core of their own.
"""

import argparse
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench import measure  # noqa: E402
from bench.measure import SERVER_CORE  # noqa: E402
from support.servers import CRABCACHE, REDIS, ROOT, Server  # noqa: E402

COMMANDS = ("get", "set", "incr", "mset")
PIPELINES = (1, 16, 64)
REQUESTS = {1: 80_000, 16: 320_000, 64: 640_000}
CPU_GOALS = {1: 0.9, 16: 0.65, 64: 0.55}
SECTIONS = ("cpu", "instructions", "memory", "threads", "log")
OURS_OFF = ["--wal-enabled", "no"]
THEIRS_OFF = ["--appendonly", "no"]
# No checkpoint, no rewriting of the append-only file in the middle of a measurement.
NO_REWRITE = ["--auto-aof-rewrite-percentage", "0"]
NO_CHECKPOINT = ["--wal-max-recovery-ms", "86400000"] + NO_REWRITE


class Measure:
    """One row of the table: pairs of (reference, ours), and the goal for their ratio."""

    def __init__(self, name, unit, at_most=None, at_least=None, absolute=False):
        self.name = name
        self.unit = unit
        self.at_most = at_most
        self.at_least = at_least
        self.absolute = absolute  # the goal is for our figure, not for the ratio
        self.pairs = []

    def add(self, reference, ours):
        self.pairs.append((reference, ours))

    def row(self):
        reference = statistics.median(pair[0] for pair in self.pairs)
        ours = statistics.median(pair[1] for pair in self.pairs)
        ratios = [pair[1] / pair[0] for pair in self.pairs]
        ratio = statistics.median(ratios)
        goal, mark = "", ""
        judged = ours if self.absolute else ratio
        if self.at_most is not None:
            goal, mark = f"≤ {self.at_most:g}", "pass" if judged <= self.at_most else "short"
        if self.at_least is not None:
            goal, mark = f"≥ {self.at_least:g}", "pass" if judged >= self.at_least else "short"
        return (
            f"| {self.name} | {self.unit} | {figure(reference)} | {figure(ours)} | "
            f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | {goal} | {mark} |"
        ), mark


def figure(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


class Bench:
    def __init__(self, chosen):
        self.chosen = chosen
        self.scale = 0.1 if chosen.quick else 1.0
        self.pairs = chosen.pairs
        self.folder = pathlib.Path(chosen.directory)
        self.folder.mkdir(parents=True, exist_ok=True)

    def server(self, binary, ours=(), theirs=(), pin=SERVER_CORE, wrapper=()):
        return Server(
            binary, ours=list(ours), theirs=list(theirs), pin=pin, wrapper=wrapper, parent=self.folder
        )

    def requests(self, pipeline):
        return int(REQUESTS[pipeline] * self.scale)

    def in_turn(self, servers, places, visit):
        """A B A B: at every place each server in turn, the others stopped meanwhile. Yields the
        place and the results, in the order of the servers. What is compared lies seconds apart, so
        that a slow minute of the machine falls on both."""
        for server in servers:
            server.process.send_signal(signal.SIGSTOP)
        try:
            for turn in range(self.pairs):
                for place in places:
                    results = []
                    for server in servers:
                        server.process.send_signal(signal.SIGCONT)
                        results.append(visit(server, place))
                        server.process.send_signal(signal.SIGSTOP)
                    yield place, results
                progress(f"{turn + 1}/{self.pairs}")
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGCONT)

    def cpu(self):
        """One thread each: CPU time of the server per request, and throughput."""
        measures = {}
        for command in COMMANDS:
            for pipeline in PIPELINES:
                goal = CPU_GOALS[pipeline] if command in ("get", "set") else None
                label = f"{command.upper()} P={pipeline}"
                measures[command, pipeline] = (
                    Measure(f"CPU per {label}", "µs", at_most=goal),
                    Measure(f"throughput {label}", "/s"),
                )

        def visit(server, place):
            command, pipeline = place
            return measure.load(server, command, pipeline, self.requests(pipeline))

        with self.server(REDIS, theirs=THEIRS_OFF) as theirs:
            with self.server(self.chosen.server, OURS_OFF + ["--threads", "1"], THEIRS_OFF) as ours:
                for server in (theirs, ours):
                    measure.fill(server, measure.KEYS)
                for place, (reference, own) in self.in_turn((theirs, ours), measures, visit):
                    cpu, throughput = measures[place]
                    cpu.add(reference.cpu_us, own.cpu_us)
                    throughput.add(reference.per_second, own.per_second)
        return [each for pair in measures.values() for each in pair]

    def instructions(self):
        """User-space instructions per request at pipeline 16. Start-up and connections cancel out:
        a short and a long run are counted, and their difference divided."""
        short, long = (1600, 8000) if self.chosen.quick else (4000, 24000)
        measures = []
        for command in COMMANDS:
            goal = 0.5 if command in ("get", "set") else None
            row = Measure(f"instructions per {command.upper()} P=16", "count", at_most=goal)
            row.add(
                self.count(REDIS, command, short, long),
                self.count(self.chosen.server, command, short, long),
            )
            progress(command)
            measures.append(row)
        return measures

    def count(self, binary, command, short, long):
        totals = []
        for requests in (short, long):
            out_file = self.folder / "callgrind.out"
            wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out_file}"]
            server = self.server(binary, OURS_OFF + ["--threads", "1"], THEIRS_OFF, wrapper=wrapper)
            try:
                server.start(timeout_s=120.0)
                measure.load(server, command, 16, requests, clients=10)
                server.stop()
                totals.append(measure.instructions(out_file))
            finally:
                server.__exit__()
                out_file.unlink(missing_ok=True)
        return (totals[1] - totals[0]) / (long - short)

    def memory(self):
        """Growth of resident memory per key: 16-byte keys, 32-byte values, log off."""
        count = int(1_000_000 * self.scale)
        row = Measure(f"memory per key, {count:,} keys", "B", at_most=95, absolute=True)
        for turn in range(min(self.pairs, 3)):
            found = []
            for binary in (REDIS, self.chosen.server):
                with self.server(binary, OURS_OFF + ["--threads", "1"], THEIRS_OFF) as server:
                    found.append(measure.bytes_per_key(server, count))
            row.add(*found)
            progress(f"{turn + 1}")
        return [row]

    def threads(self):
        """Two threads against two io-threads. Nothing is pinned: load and servers share all cores."""
        measures = {
            command: (
                Measure(f"two threads: throughput {command.upper()} P=16", "/s", at_least=1.8),
                Measure(f"two threads: CPU per {command.upper()} P=16", "µs"),
            )
            for command in ("get", "set")
        }

        def visit(server, command):
            # With threads redis-benchmark looks at the clock every 250 ms: only a long run is exact.
            return measure.load(server, command, 16, 2 * self.requests(64), pin=None, threads=2)

        io_threads = THEIRS_OFF + ["--io-threads", "2", "--io-threads-do-reads", "yes"]
        with self.server(REDIS, theirs=io_threads, pin=None) as theirs:
            with self.server(
                self.chosen.server, OURS_OFF + ["--threads", "2"], io_threads, pin=None
            ) as ours:
                for server in (theirs, ours):
                    measure.fill(server, measure.KEYS)
                for command, (reference, own) in self.in_turn((theirs, ours), measures, visit):
                    throughput, cpu = measures[command]
                    throughput.add(reference.per_second, own.per_second)
                    cpu.add(reference.cpu_us, own.cpu_us)
        return [each for pair in measures.values() for each in pair]

    def log(self):
        """SET with 50 clients: log off, async, sync, and redis-server's appendfsync always."""
        rows = {}
        for pipeline in (1, 16):
            rows[pipeline] = (
                Measure(f"async over log off: throughput P={pipeline}", "/s", at_least=0.9),
                Measure(f"async over log off: CPU P={pipeline}", "µs", at_most=1.25),
                Measure(f"sync over log off: throughput P={pipeline}", "/s", at_least=0.7),
                Measure(f"sync over appendfsync always: throughput P={pipeline}", "/s", at_least=1.5),
            )

        def visit(server, pipeline):
            return measure.load(server, "set", pipeline, self.requests(1 if pipeline == 1 else 64))

        def logged(policy):
            theirs = {"async": "everysec", "sync": "always"}[policy]
            return self.server(
                self.chosen.server,
                ["--threads", "1", "--wal-enabled", "yes", "--wal-sync-policy", policy] + NO_CHECKPOINT,
                ["--appendonly", "yes", "--appendfsync", theirs] + NO_REWRITE,
            )

        always = ["--appendonly", "yes", "--appendfsync", "always"] + NO_REWRITE
        with (
            self.server(self.chosen.server, OURS_OFF + ["--threads", "1"], THEIRS_OFF) as off,
            logged("async") as lazy,
            logged("sync") as strict,
            self.server(REDIS, theirs=always) as reference,
        ):
            turns = self.in_turn((off, lazy, strict, reference), rows, visit)
            for pipeline, (plain, soon, now, theirs) in turns:
                through, cpu, synced, against = rows[pipeline]
                through.add(plain.per_second, soon.per_second)
                cpu.add(plain.cpu_us, soon.cpu_us)
                synced.add(plain.per_second, now.per_second)
                against.add(theirs.per_second, now.per_second)
        return [each for row in rows.values() for each in row]


def progress(text):
    print(f" {text}", end="", file=sys.stderr, flush=True)


def conditions(chosen):
    def first(line):
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.split("\n")[0]

    cpu = next(
        (line for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    ).rpartition(":")[2].strip()
    cores = pathlib.Path("/sys/devices/system/cpu/online").read_text().strip()
    file_system = first(["stat", "-f", "-c", "%T", chosen.directory])
    return [
        f"- machine: {cpu}, cores {cores}; Linux {platform.release()}; logs on {file_system}",
        f"- reference: {first([REDIS, '--version'])}",
        f"- under test: {first([chosen.server, '--version'])}",
        f"- load: {first(['redis-benchmark', '--version'])}, 50 clients, {measure.KEYS:,} keys of "
        f"16 B, values of {measure.VALUE_BYTES} B; server on core {SERVER_CORE}, load on core "
        f"{measure.LOAD_CORE}; {chosen.pairs} pairs",
    ]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, two pairs")
    parser.add_argument("--only", default=",".join(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument(
        "--directory",
        default=str(ROOT / "build" / "bench"),
        help="where logs go: a real disk, not memory",
    )
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.pairs = min(chosen.pairs, 2)
    unknown = set(chosen.only.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return chosen


def measure_sections(bench, sections):
    """Measures each section, prints its rows as they come, and returns how each compares."""
    print("| measure | unit | reference | CrabCache | ratio (spread) | goal | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    marks = []
    for section in sections:
        started = time.monotonic()
        progress(f"{section}:")
        for row, mark in (each.row() for each in getattr(bench, section)()):
            print(row, flush=True)
            marks.append(mark)
        progress(f"({time.monotonic() - started:.0f} s)\n")
    print()
    return marks


def count_goals(marks):
    # A measurement that falls short is a fact to print, not a failed run.
    print(f"\n{marks.count('pass')} goals reached, {marks.count('short')} short")


def main():
    chosen = options()
    bench = Bench(chosen)
    marks = measure_sections(bench, chosen.only.split(","))
    print("The reference is redis-server, except where the row names our own log off.\n")
    print("\n".join(conditions(chosen)))
    count_goals(marks)


if __name__ == "__main__":
    main()
