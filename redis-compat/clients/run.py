#!/usr/bin/python3
"""Real clients against the server, used as their users use them, mostly with their defaults.

    redis-compat/clients/run.py [--server PATH] [--only NAME] [--hiredis-client PATH]

What needs npm is skipped only when told so: `--without node`.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from differential.pair import data_set  # noqa: E402
from support.servers import CRABCACHE, REDIS, ROOT, Server, free_port  # noqa: E402
from support.tally import Tally  # noqa: E402

LIMIT_S = 90
BENCHMARK = "ping,set,get,incr,mset"


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--only", help="only this client")
    parser.add_argument("--without", action="append", default=[], help="leave this client out")
    parser.add_argument(
        "--hiredis-client",
        default=str(ROOT / "build" / "release" / "hiredis_client"),
        help="the built hiredis_client.cc; compiled here when it is not there",
    )
    return parser.parse_args()


def run(line, stdin=b"", limit_s=LIMIT_S):
    """A client's whole run: (status, output). One that hangs is stopped and has failed."""
    try:
        done = subprocess.run(
            line, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
        )
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        return -1, (late.stdout or b"") + b"\n<did not end in time>"


def redis_cli(server, tally):
    cli = ["redis-cli", "-p", str(server.port)]

    def prints(name, arguments, expected, stdin=b""):
        status, output = run(cli + arguments, stdin)
        tally.check(f"redis-cli {name}", status == 0 and output == expected, f"{status} {output!r}")

    def matches(name, arguments, pattern, stdin=b"", limit_s=LIMIT_S):
        status, output = run(cli + arguments, stdin, limit_s)
        tally.check(
            f"redis-cli {name}",
            re.search(pattern, output.decode(errors="replace"), re.DOTALL) is not None,
            f"status {status}: {output[-500:]!r}",
        )

    prints("set", ["SET", "cli:k", "v"], b"OK\n")
    prints("get", ["GET", "cli:k"], b"v\n")
    session = b"SET cli:n 1\nINCR cli:n\nGET cli:none\nGET cli:k\n"
    prints("a session", [], b"OK\n2\n\nv\n", session)
    prints("--no-raw", ["--no-raw", "GET", "cli:none"], b"(nil)\n")
    prints("-x", ["-x", "SET", "cli:x"], b"OK\n", b"from stdin")
    prints("-x, read back", ["GET", "cli:x"], b"from stdin\n")
    prints("-3", ["-3", "--no-raw", "GET", "cli:none"], b"(nil)\n")
    config_get = ["-3", "--no-raw", "CONFIG", "GET", "maxmemory"]
    matches("-3 with a map", config_get, r'1# "maxmemory" => "0"')
    matches("an error", ["INCR", "cli:k"], r"ERR value is not an integer")
    matches("-e", ["-e", "INCR", "cli:k"], r"ERR value is not an integer")
    prints("-n", ["-n", "3", "EXISTS", "cli:k"], b"0\n")
    prints("-r", ["-r", "3", "INCR", "cli:r"], b"1\n2\n3\n")
    matches("-s", ["-s", server.unix_path, "PING"], r"^PONG\n$")
    matches("-u", ["-u", f"redis://127.0.0.1:{server.port}/2", "PING"], r"^PONG\n$")
    matches("HELLO", ["-3", "HELLO"], r"proto 3")
    matches("COMMAND DOCS", ["COMMAND", "DOCS", "set"], r"summary.*arguments")
    # With a terminal redis-cli asks for COMMAND DOCS first; the hints come from its answer.
    matches("help", ["help", "set"], r"SET.*key value.*summary")

    pipe = b"".join(b"*3\r\n$3\r\nSET\r\n$8\r\np:%06d\r\n$1\r\nv\r\n" % i for i in range(2000))
    matches("--pipe", ["--pipe"], r"errors: 0, replies: 2000", pipe)
    status, output = run(cli + ["--scan", "--pattern", "p:*"])
    tally.check("redis-cli --scan", status == 0 and len(set(output.split())) == 2000, output[-200:])
    matches("--bigkeys", ["--bigkeys"], r"Sampled \d+ keys in the keyspace.*2\d\d\d strings with")
    matches("--memkeys", ["--memkeys"], r"Sampled \d+ keys in the keyspace")
    matches("--latency", ["--latency", "--raw", "-i", "1"], r"^\d+ \d+ [\d.]+ \d+")
    matches("INFO", ["INFO", "server"], r"redis_version:")
    own_line = r"^id=\d+ addr=127\.0\.0\.1:\d+ .*cmd=client\|list"
    matches("CLIENT LIST", ["CLIENT", "LIST"], own_line)


def redis_benchmark(server, tally):
    line = ["redis-benchmark", "-p", str(server.port), "-t", BENCHMARK, "-q", "-n", "20000"]
    for name, more in (
        ("defaults", []),
        ("-P 16", ["-P", "16"]),
        ("-r 1000 -d 100", ["-r", "1000", "-d", "100", "-P", "16"]),
        ("--threads 2", ["--threads", "2", "-P", "16"]),
        ("-k 0", ["-k", "0", "-n", "2000"]),
        ("--csv", ["--csv"]),
    ):
        status, output = run(line + more)
        results = output.decode(errors="replace").replace("\r", "\n")
        # PING comes twice: inline and as an array.
        rates = re.findall(r"requests per second|^\"[A-Z]", results, re.MULTILINE)
        tally.check(
            f"redis-benchmark {name}",
            status == 0 and len(rates) >= 6 and "rror" not in results,
            f"status {status}: {results[-500:]}",
        )
    line = ["redis-benchmark", "-s", server.unix_path, "-q", "-n", "5000", "-t", "set"]
    status, output = run(line)
    tally.check("redis-benchmark -s", status == 0 and b"per second" in output, output[-300:])


def count(name, output, status, tally):
    """Adds a client program's own last line to ours."""
    for line in output:
        if not re.fullmatch(r"\d+ passed, \d+ failed", line):
            print(line)
    last = re.fullmatch(r"(\d+) passed, (\d+) failed", output[-1]) if output else None
    if last is None:
        tally.check(f"{name} ran to its end", False, f"status {status}: {output[-5:]}")
        return
    tally.passed += int(last[1])
    tally.failed += int(last[2])


def converse(name, line, server, tally, limit_s=LIMIT_S):
    """Runs a client that asks, by printing RESTART, for the server to be restarted."""
    process = subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE,
    )
    watchdog = threading.Timer(limit_s, process.kill)
    watchdog.start()
    output = []
    try:
        for text in process.stdout:
            if text.strip() == "RESTART":
                server.restart()
                process.stdin.write("restarted\n")
                process.stdin.flush()
            else:
                output.append(text.rstrip())
        status = process.wait()
    finally:
        watchdog.cancel()
    count(name, output, status, tally)


def python_redis(server, tally):
    program = str(HERE / "python_client.py")
    line = ["/usr/bin/python3", program, str(server.port), server.unix_path]
    converse("python3-redis", line, server, tally)


def node(server, tally):
    folder = HERE / "node"
    installed = folder / "node_modules" / ".package-lock.json"
    locked = folder / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
        line = ["npm", "ci", "--prefix", str(folder), "--no-audit", "--no-fund"]
        status, output = run(line, limit_s=300)
        if not tally.check("npm ci", status == 0, output[-1000:].decode(errors="replace")):
            return
        installed.touch()
    for library in ("ioredis", "redis"):
        converse(library, ["node", "node/client.mjs", library, str(server.port)], server, tally)


def hiredis(server, tally, program):
    with tempfile.TemporaryDirectory() as folder:
        if not pathlib.Path(program).exists():
            program = str(pathlib.Path(folder) / "hiredis_client")
            source = str(HERE / "hiredis_client.cc")
            status, output = run(["g++", "-std=c++20", "-O1", source, "-o", program, "-lhiredis"])
            if not tally.check("hiredis_client.cc compiles", status == 0, output.decode()):
                return
        status, output = run([program, str(server.port), server.unix_path])
        count("hiredis", output.decode(errors="replace").splitlines(), status, tally)


def operator(server, tally):
    """What the one who runs the server does: looks, switches, moves out, stops it, and starts it
    wrongly."""
    with server.connect() as connection:
        connection.do("SET", "op:k", "v")
        if not server.redis:
            watch_the_log(server, connection, tally)
            move_to_redis(server, connection, tally)
    second = [server.binary, "--port", str(server.port), "--save", "", "--dir", str(server.directory)]
    status, output = run(second + ([] if server.redis else ["--wal-enabled", "no"]), limit_s=10)
    tally.check("a taken port is refused", status > 0 and b"ddress" in output, f"{status} {output!r}")
    status, output = run([server.binary, "--no-such-option", "1"], limit_s=10)
    named = status > 0 and b"no-such-option" in output
    tally.check("a bad option is refused and named", named, output)
    status, output = run([server.binary, "/no/such/file.conf"], limit_s=10)
    named = status > 0 and b"/no/such/file" in output
    tally.check("a missing file is refused and named", named, output)
    tally.equal("SIGTERM ends it with 0", server.stop(), 0)
    server.start()
    status, output = run(["redis-cli", "-p", str(server.port), "SHUTDOWN"])
    tally.equal("SHUTDOWN ends it with 0", server.process.wait(10), 0)
    server.start()
    with server.connect() as connection:
        tally.equal("the data is there after both", connection.do("GET", "op:k"), b"v")


def watch_the_log(server, connection, tally):
    """STATS, INFO persistence and the switch of the policy: CrabCache only."""
    with server.connect() as inline:
        inline.send(b"STATS\n")
        inline.socket.settimeout(10)
        line = b""
        while not line.endswith(b"\n") and (data := inline.socket.recv(65536)):
            line += data
    for name, text in (("inline", line), ("in RESP", connection.do("STATS"))):
        stats = json.loads(text)
        tally.equal(f"STATS {name}: wal_enabled", stats["wal"]["wal_enabled"], True)
        tally.equal(
            f"STATS {name}: wal_config",
            set(stats["wal"]["wal_config"])
            >= {"max_segment_size", "buffer_size", "flush_interval_ms", "sync_policy"},
            True,
        )
    for policy, alias in (("sync", b"always"), ("none", b"no"), ("async", b"everysec")):
        connection.do("CONFIG", "SET", "wal-sync-policy", policy)
        info = connection.do("INFO", "persistence").decode()
        tally.check(f"INFO shows policy {policy}", f"policy:{policy}" in info, info)
        appendfsync = connection.do("CONFIG", "GET", "appendfsync")[1]
        tally.equal(f"appendfsync follows {policy}", appendfsync, alias)
    # A second server must not write into the same log.
    line = [server.binary, "--port", str(free_port()), "--save", "", "--wal-enabled", "yes"]
    status, output = run(line + ["--wal-dir", str(server.directory / "wal")], limit_s=10)
    refused = status > 0 and b"wal" in output.lower()
    tally.check("a log in use is refused", refused, f"{status} {output!r}")


def move_to_redis(server, connection, tally):
    """The log as commands, piped into a redis-server: a checkpoint, and what came after it."""
    for command in (
        ["MSET", "op:a", "1", "op:b", "2"],
        ["SET", "op:gone", "soon", "PX", "1"],
        ["SET", "op:later", "v", "EX", "10000"],
        ["SET", b"op:\x00\r\n\xff", bytes(range(256))],
        ["SET", "op:large", os.urandom(3 << 20)],
        ["SELECT", "5"],
        ["SET", "op:k", "of another database"],
        ["SAVE"],
        ["INCRBY", "op:n", "7"],
        ["SELECT", "0"],
        ["APPEND", "op:a", "+"],
        ["EXPIRE", "op:b", "20000"],
        ["PERSIST", "op:later"],
        ["RENAME", "op:k", "op:renamed"],
        ["COPY", "op:renamed", "op:k"],
        ["SET", "op:none", "v"],
        ["DEL", "op:none"],
        ["WAL", "FLUSH"],
    ):
        connection.do(*command)
    beside = pathlib.Path(server.binary).resolve().parent / "crabcache-wal"
    tool = beside if beside.exists() else ROOT / "build" / "release" / "crabcache-wal"
    with Server(REDIS, theirs=["--appendonly", "no"]) as reference:
        dumped = subprocess.run(
            [str(tool), "dump", "--resp", str(server.directory / "wal")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
        )
        tally.check("dump --resp", dumped.returncode == 0, dumped.stderr[-500:])
        status, output = run(["redis-cli", "-p", str(reference.port), "--pipe"], dumped.stdout)
        tally.check("redis-cli --pipe takes it", status == 0 and b"errors: 0" in output, output)
        with reference.connect() as other:
            ours, theirs = (dated_data(each) for each in (connection, other))
        differ = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        tally.check("redis-server has the same data then", not differ and len(ours) > 8, differ)


def dated_data(connection):
    """(database, key) -> (type, value, deadline)"""
    found = {}
    for (database, key), entry in data_set(connection).items():
        connection.do("SELECT", database)
        found[database, key] = (*entry[:2], connection.do("PEXPIRETIME", key))
    connection.do("SELECT", 0)
    return found


def main():
    chosen = options()
    tally = Tally()
    clients = {
        "redis-cli": redis_cli,
        "redis-benchmark": redis_benchmark,
        "hiredis": lambda server, counted: hiredis(server, counted, chosen.hiredis_client),
        "python3-redis": python_redis,
        "node": node,
        "operator": operator,
    }
    for name, client in clients.items():
        if (chosen.only and name != chosen.only) or name in chosen.without:
            continue
        before = tally.passed + tally.failed
        # Each client finds an empty server that keeps its data over a restart.
        with Server(
            chosen.server,
            ours=["--wal-enabled", "yes", "--threads", "2"],
            theirs=["--appendonly", "yes"],
        ) as server:
            client(server, tally)
        print(f"{name}: {tally.passed + tally.failed - before} checks", flush=True)
    tally.finish()


if __name__ == "__main__":
    main()
