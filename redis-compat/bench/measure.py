"""What one run of a load tells: throughput, the server's CPU time, its memory, its instructions."""

import csv
import io
import pathlib
import re
import subprocess

from support.resp import encode

SERVER_CORE, LOAD_CORE = "0", "1"
LOAD_LIMIT_S = 120
KEYS = 100_000
VALUE_BYTES = 32


def cpu_ns(pid):
    """CPU time of all of a process' threads. The scheduler counts it in nanoseconds; ticks of
    utime + stime, the fallback, are a hundred times coarser than a short run needs."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * 10_000_000
    return total


def resident_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


class Sample:
    """One run of redis-benchmark."""

    def __init__(self, per_second, cpu_us):
        self.per_second = per_second
        self.cpu_us = cpu_us


def load(server, command, pipeline, requests, clients=50, pin=LOAD_CORE, threads=None):
    """Runs one test of redis-benchmark and reads what it cost the server."""
    line = ["taskset", "-c", pin] if pin is not None else []
    line += ["redis-benchmark", "-p", str(server.port), "-t", command, "-n", str(requests)]
    line += ["-P", str(pipeline), "-c", str(clients), "-r", str(KEYS), "-d", str(VALUE_BYTES)]
    line += ["--csv"]
    if threads:
        line += ["--threads", str(threads)]
    before = cpu_ns(server.process.pid)
    done = subprocess.run(line, capture_output=True, text=True, timeout=LOAD_LIMIT_S, check=True)
    used = cpu_ns(server.process.pid) - before
    rows = [row for row in csv.reader(io.StringIO(done.stdout)) if len(row) > 1 and row[0] != "test"]
    if len(rows) != 1:
        raise RuntimeError(f"{' '.join(line)} printed {done.stdout!r} {done.stderr!r}")
    return Sample(float(rows[0][1]), used / 1000 / requests)


def fill(server, count, value_bytes=VALUE_BYTES):
    """Writes `count` keys of 16 bytes."""
    value = b"v" * value_bytes
    with server.connect(timeout_s=60.0) as connection:
        for start in range(0, count, 1000):
            part = range(start, min(start + 1000, count))
            connection.send(b"".join(encode([b"SET", b"key:%012d" % i, value]) for i in part))
            connection.replies(len(part))


def bytes_per_key(server, count):
    """Growth of resident memory per key."""
    fill(server, 1)  # what the first command allocates is no key's
    before = resident_bytes(server.process.pid)
    fill(server, count)
    return (resident_bytes(server.process.pid) - before) / count


def instructions(out_file):
    """User-space instructions of a whole process, from callgrind's file."""
    text = pathlib.Path(out_file).read_text(errors="replace")
    return int(re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)[1])
