#!/usr/bin/python3
"""Compares CrabCache with redis-server, reply by reply and data set by data set.

    redis-compat/differential/run.py [--server PATH] [--only TEXT] [--seed N --steps N] [--long S]
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from differential import cases, random_stream  # noqa: E402
from differential.differences import Differences  # noqa: E402
from differential.pair import Pair  # noqa: E402
from support.servers import CRABCACHE, REDIS  # noqa: E402
from support.tally import Tally  # noqa: E402

SEEDS = range(1, 41)
STEPS = 5000

# What must be there: a command that is missing would otherwise silently not be compared.
COMMANDS = """
ping echo quit select auth hello reset client
get set setnx setex psetex getset getdel getex mget mset msetnx append strlen getrange substr
setrange incr incrby incrbyfloat decr decrby lcs
del unlink exists type touch rename renamenx copy move randomkey keys scan dbsize flushdb flushall
swapdb expire pexpire expireat pexpireat ttl pttl expiretime pexpiretime persist object
info config command time lastsave memory debug shutdown waitaof stats
""".split()
NOT_IN_REFERENCE = {"waitaof", "stats"}


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=CRABCACHE, help="the server under test")
    parser.add_argument("--redis", default=REDIS, help="the reference")
    parser.add_argument("--threads", type=int, default=2, help="loops of the server under test")
    parser.add_argument("--only", help="run only the cases whose name holds this text")
    parser.add_argument("--seed", type=int, help="run this one random stream and no case")
    parser.add_argument("--steps", type=int, default=STEPS, help="commands of a random stream")
    parser.add_argument("--protocol", type=int, choices=(2, 3), help="only RESP2 or RESP3")
    parser.add_argument("--long", type=float, metavar="S", help="new seeds for so many seconds")
    parser.add_argument("--verbose", action="store_true", help="print the time of every case")
    return parser.parse_args()


def check_commands(pair, tally):
    known = {name.decode().lower() for name in pair.control[0].do("COMMAND", "LIST")}
    for name in COMMANDS:
        if not (pair.same_program and name in NOT_IN_REFERENCE):
            tally.check(f"COMMAND LIST holds {name}", name in known)
    theirs = {name.decode() for name in pair.control[1].do("COMMAND", "LIST")}
    for name in sorted(known - theirs):
        tally.check(
            f"{name} is unknown to the reference and listed in differences.md",
            pair.differences.accepts_absent(name),
        )


def main():
    chosen = options()
    tally = Tally()
    differences = Differences()
    protocols = (chosen.protocol,) if chosen.protocol else (2, 3)
    started = time.monotonic()
    with Pair(chosen.server, chosen.redis, differences, chosen.threads) as pair:
        if chosen.seed is None and chosen.long is None:
            check_commands(pair, tally)
            cases.run_all(pair, tally, protocols, chosen.only, chosen.verbose)
        if not chosen.only:
            table = random_stream.Table(pair, COMMANDS)
            if chosen.seed is not None:
                seeds = [chosen.seed]
            elif chosen.long is not None:
                seeds = iter(lambda: int(time.time() * 1000), None)
            else:
                seeds = SEEDS
            for seed in seeds:
                if chosen.long is not None and time.monotonic() - started > chosen.long:
                    break
                for protocol in protocols:
                    random_stream.run_stream(pair, table, seed, chosen.steps, protocol, tally)
        # Only a whole run against CrabCache can tell that a row is no longer needed.
        whole = chosen.seed is None and chosen.long is None and not chosen.only
        if whole and len(protocols) == 2 and not pair.same_program:
            for row in differences.unused():
                tally.check(f"differences.md row {row.identifier} is still needed", False)
        print(f"{pair.compared} replies compared in {time.monotonic() - started:.1f} s")
    tally.finish()


if __name__ == "__main__":
    main()
