#!/usr/bin/python3
"""Kills the server with -9 under load, again and again, and checks what it holds after each restart.

    redis-compat/crash/run.py [--server PATH] [--kills N] [--only NAME] [--seed N]

Writers on several connections keep pipelines of commands under way, while checkpoints are written,
segments come and go and policies change. After a kill everything that was acknowledged must be there;
of what was under way per connection none, some or all, whole and in order. The count of kills and of
the acknowledged commands that were looked for is printed at the end.
"""

import argparse
import collections
import pathlib
import random
import re
import selectors
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from crash.model import Writer  # noqa: E402
from support.resp import Closed, Incomplete, Slow, encode, reply_end  # noqa: E402
from support.servers import CRABCACHE, Server  # noqa: E402
from support.tally import Tally  # noqa: E402

POLICIES = ("none", "async", "sync")
# For the check of this program itself. redis-server's everysec may hold a write back while an fsync
# runs, and then loses acknowledged writes on kill -9; its other two policies do not.
REDIS_POLICY = {"none": "no", "async": "no", "sync": "always"}
# The smallest ring and segment, so that values pass an eighth of the one and all of the other.
RING_BYTES = SEGMENT_BYTES = 1 << 20
KILLS_PER_DIRECTORY = 7
# A checkpoint may be refused while one is written, or is not possible yet; nothing else may be.
NO_CHECKPOINT_NOW = re.compile(rb"in progress|process is active|being recovered")
# disturb: what a control connection does meanwhile, of "policy", "checkpoint" and "durability".
Plan = collections.namedtuple("Plan", "name policy threads disturb big_bytes options")


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--kills", type=int, default=30, help="kills of each policy's plan")
    parser.add_argument("--only", default="", help="plans whose names contain this")
    parser.add_argument("--writers", type=int, default=4, help="connections that write")
    parser.add_argument("--depth", type=int, default=32, help="largest pipeline of one connection")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the directory of a failed run")
    return parser.parse_args()


class Link:
    """A writer's connection, driven without blocking."""

    def __init__(self, writer, connection, depth):
        self.writer = writer
        self.connection = connection
        self.depth = depth
        self.socket = connection.socket
        self.socket.setblocking(False)
        self.unsent = b""
        self.received = b""
        self.open = True

    def fill(self):
        """Keeps a pipeline under way and hands the kernel as much of it as it takes."""
        parts = [self.unsent]
        while len(self.writer.in_flight) < self.depth:
            parts.append(self.writer.next_command())
        self.unsent = b"".join(parts)
        try:
            sent = self.socket.send(self.unsent)
            self.unsent = self.unsent[sent:]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            pass  # the replies that had left before are still to be read

    def drain(self):
        """Takes every reply that is there. Returns the first wrong one's story, or None."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        if not data:
            self.open = False
            return None
        self.received += data
        start, problem = 0, None
        while start < len(self.received):
            try:
                end = reply_end(self.received, start)
            except Incomplete:
                break
            problem = problem or self.writer.acknowledge(self.received[start:end])
            start = end
        self.received = self.received[start:]
        return problem


def load(server, writers, depth, kill_after_s, disturbance, durable, rng):
    """Writes until the server, killed at a random moment, has closed every connection."""
    links = []
    selector = selectors.DefaultSelector()
    for writer in writers:
        connection = server.connect()
        if durable and not server.redis:
            connection.do("CLIENT", "DURABILITY", rng.choice((*POLICIES, "default")))
        link = Link(writer, connection, rng.randrange(1, depth + 1))
        links.append(link)
        selector.register(link.socket, selectors.EVENT_READ, link)
    control = server.connect() if disturbance else None
    # The signal comes from another thread: it falls anywhere, also into the middle of a send.
    killer = threading.Timer(kill_after_s, server.process.kill)
    killer.start()
    problem = None
    deadline = time.monotonic() + kill_after_s + 30
    try:
        while any(link.open for link in links) and problem is None:
            if time.monotonic() > deadline:
                problem = "a killed server's connection stays open"
            if control and rng.random() < 0.02:
                try:
                    refused = control.raw(*disturbance(rng))
                    if refused.startswith(b"-") and not NO_CHECKPOINT_NOW.search(refused):
                        problem = f"a disturbance was refused: {refused!r}"
                except (Closed, Slow, OSError):
                    control = None
            for link in links:
                if link.open:
                    link.fill()
            for key, _ in selector.select(0.01):
                link = key.data
                problem = problem or link.drain()
                if not link.open:
                    selector.unregister(link.socket)
    finally:
        killer.cancel()
        server.kill()
        for link in links:
            link.connection.close()
    return problem


def read_back(server):
    """The whole data set: key -> (value, whether it has a deadline)."""
    with server.connect(timeout_s=30.0) as connection:
        keys = connection.do("KEYS", "*")
        found = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            values = connection.pipeline([["GET", key] for key in part])
            ttls = connection.pipeline([["PTTL", key] for key in part])
            for key, value, ttl in zip(part, values, ttls):
                found[key] = (value, ttl >= 0)
        return found


def verify(server, writers):
    """All that is wrong with the data set after a restart."""
    found = read_back(server)
    counter = int(found.pop(b"shared:counter", (b"0", False))[0])
    problems = []
    for writer in writers:
        own = {key: found.pop(key) for key in list(found) if key.startswith(writer.prefix)}
        problem = writer.settle(own)
        if problem:
            problems.append(problem)
    if found:
        problems.append(f"keys that nobody wrote: {sorted(found)[:5]!r}")
    low = sum(writer.counter_acknowledged for writer in writers)
    high = sum(writer.counter_sent for writer in writers)
    if not low <= counter <= high:
        problems.append(f"shared:counter is {counter}, should lie in {low}..{high}")
    # What was under way is decided now: the next round counts from what was found.
    for writer in writers:
        writer.counter_acknowledged = writer.counter_sent = 0
    writers[0].counter_acknowledged = writers[0].counter_sent = counter
    return problems


def server_for(binary, plan):
    ours = ["--wal-enabled", "yes", "--wal-sync-policy", plan.policy]
    ours += ["--threads", str(plan.threads)]
    ours += ["--wal-ring-size", str(RING_BYTES), "--wal-max-segment-size", str(SEGMENT_BYTES)]
    ours += plan.options
    theirs = ["--appendonly", "yes", "--appendfsync", REDIS_POLICY[plan.policy]]
    theirs += ["--auto-aof-rewrite-percentage", "0"]
    return Server(binary, ours=ours, theirs=theirs)


def disturber(server, plan):
    """Draws commands that change how the server keeps its data, in the spelling of this server."""

    def policy(rng):
        name = rng.choice(POLICIES)
        if server.redis:
            return ["CONFIG", "SET", "appendfsync", REDIS_POLICY[name]]
        return ["CONFIG", "SET", "wal-sync-policy", name]

    def checkpoint(rng):
        return [rng.choice(("BGSAVE", "BGREWRITEAOF"))]

    known = {"policy": policy, "checkpoint": checkpoint}
    kinds = [known[each] for each in plan.disturb if each in known]
    return (lambda rng: rng.choice(kinds)(rng)) if kinds else None


def checkpoints_in(server):
    return len(list((server.directory / "wal").glob("checkpoint-*.ckpt")))


def run_directory(chosen, plan, seed, kills, tally, totals):
    """A fresh directory, killed `kills` times."""
    rng = random.Random(f"{plan.name}/{seed}")
    stream = f"{plan.name}/{seed}"
    writers = [Writer(number, stream, plan.big_bytes) for number in range(chosen.writers)]
    with server_for(chosen.server, plan) as server:
        disturbance = disturber(server, plan)
        seen = 0  # checkpoints that a restart found
        for kill in range(kills):
            name = f"{plan.name}, seed {seed}, kill {kill + 1}"
            durable = "durability" in plan.disturb
            kill_after_s = rng.uniform(0.02, 0.5)
            problem = load(server, writers, chosen.depth, kill_after_s, disturbance, durable, rng)
            totals["kills"] += 1
            seen += checkpoints_in(server)
            # Now and then the next start is killed as well: recovery must survive its own death.
            for _ in range(rng.choice((0, 0, 0, 1, 2))):
                server.spawn()
                time.sleep(rng.uniform(0.0, 0.03))  # a random moment, not a wait
                server.kill()
                totals["kills"] += 1
                totals["kills during a restart"] += 1
            try:
                server.start()
                problems = ([problem] if problem else []) + verify(server, writers)
            except (RuntimeError, Closed, Slow, OSError) as error:
                problems = [problem, f"no restart: {type(error).__name__}: {error}"]
            if not tally.check(name, not problems, "\n  ".join(filter(None, problems))):
                if chosen.keep:
                    kept = pathlib.Path(f"{server.directory}-kept")
                    shutil.copytree(server.directory, kept, ignore=shutil.ignore_patterns("*.sock"))
                    print(f"  kept in {kept}")
                break
        else:
            name = f"{plan.name}, seed {seed}: a graceful stop keeps the same"
            tally.equal(f"{name}, status", server.stop(), 0)
            server.start()
            tally.check(name, not verify(server, writers))
            # A proof of no loss is worth what its oracle can see: take one key away, and it must.
            with server.connect() as connection:
                lost = next(key for writer in writers for key in sorted(writer.state))
                connection.do("DEL", lost)
            tally.check(f"{plan.name}: the oracle sees a lost key", verify(server, writers))
            if "checkpoint" in plan.disturb and not server.redis and kills >= KILLS_PER_DIRECTORY:
                tally.check(f"{plan.name}: restarts found checkpoints", seen > 0)
        totals["acknowledged commands checked"] += sum(writer.acknowledged for writer in writers)


def main():
    chosen = options()
    tally = Tally()
    big = 3 * SEGMENT_BYTES // 2
    busy = ("policy", "checkpoint", "durability")
    often = ["--wal-max-recovery-ms", "1"]  # a checkpoint as often as the rules allow
    plans = [
        Plan("none", "none", 2, (), 0, []),
        Plan("async", "async", 3, (), big, []),
        Plan("sync", "sync", 2, (), big, []),
        Plan("one thread", "async", 1, ("checkpoint",), 0, often),
        Plan("policies", "sync", 2, ("policy", "durability"), SEGMENT_BYTES // 2, []),
        Plan("checkpoints", "async", 2, ("checkpoint",), big, often),
        Plan("checkpoints and policies", "async", 2, busy, SEGMENT_BYTES // 2, often),
        Plan("compressed", "none", 2, busy, SEGMENT_BYTES // 2, ["--wal-compression", "lz4"]),
    ]
    plans = [plan for plan in plans if chosen.only in plan.name]
    totals = collections.Counter()
    for plan in plans:
        started, before, seed = time.monotonic(), totals.copy(), chosen.seed
        # The plans on the side are shorter: the three policies and checkpoints are to be shown.
        main_plan = plan.name in POLICIES or plan.name.startswith("checkpoints")
        left = chosen.kills if main_plan else max(chosen.kills // 2, 1)
        while left > 0:
            kills = min(left, KILLS_PER_DIRECTORY)
            run_directory(chosen, plan, seed, kills, tally, totals)
            left -= kills
            seed += 1
        new = totals - before
        print(
            f"{plan.name}: {new['kills']} kills, {new['acknowledged commands checked']} commands "
            f"acknowledged, {time.monotonic() - started:.1f} s",
            flush=True,
        )
    print(", ".join(f"{count} {what}" for what, count in totals.items()), flush=True)
    tally.finish()


if __name__ == "__main__":
    main()
