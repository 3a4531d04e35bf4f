"""Seeded random command streams, made from the command table that redis-server itself reports.

COMMAND DOCS gives every command's arguments as a tree; a command is drawn by walking that tree, and
then, sometimes, damaged: an argument dropped, doubled, replaced or joined by another's option.
"""

import random
import re
import time

from support.resp import encode, quote

from .pair import exchange, show

# Commands that a random stream leaves out, and why. The hand-written cases cover them.
LEFT_OUT = {
    "acl": "users are configuration",
    "auth": "closes the road for the rest of the stream; see cases/connection.txt",
    "bgrewriteaof": "background work",
    "bgsave": "background work",
    "client": "ids and addresses; see cases/client.txt",
    "cluster": "configuration",
    "config": "changes the servers; see cases/config.txt",
    "debug": "test tool",
    "failover": "administration",
    "hello": "changes the protocol; see cases/connection.txt",
    "info": "states the program",
    "lastsave": "a clock",
    "latency": "a clock",
    "memory": "states the allocator",
    "module": "administration",
    "monitor": "a push stream",
    "object|idletime": "a clock; see cases/keys.txt",
    "psync": "replication",
    "quit": "ends the connection",
    "randomkey": "random; see cases/keys.txt",
    "replicaof": "replication",
    "reset": "changes the protocol; see cases/connection.txt",
    "save": "background work",
    "scan": "the cursor is free; see cases/scan.txt",
    "shutdown": "ends the server",
    "slaveof": "replication",
    "slowlog": "a clock",
    "stats": "ours alone",
    "sync": "replication",
    "time": "a clock",
    "wait": "replication",
    "waitaof": "replication",
}
UNORDERED = {b"keys", b"smembers", b"hgetall", b"hkeys", b"hvals"}
RARE = {"flushall": 0.02, "flushdb": 0.05, "swapdb": 0.3, "select": 0.3, "command": 0.6}

KEYS = [
    b"a", b"b", b"c", b"key:1", b"key:2", b"{tag}x", b"{tag}y", b"", b"\x00\xff\r\n", b"k" * 100,
    "schlüssel".encode(), b"[glob]*?", b"12", b"d" * 1000,
]  # fmt: skip
VALUES = [
    b"", b"0", b"1", b"-1", b"10", b"9223372036854775807", b"-9223372036854775808", b"9999999999",
    b"hello", b"ohmytext", b"mynewtext", b"3.14", b"-0", b"+5", b" 7", b"7 ", b"1e3", b"inf", b"nan",
    b"0x10", b"\x00\x01\x02", b"\xff\xfe", b"x" * 44, b"x" * 45, b"y" * 300, b"007", b"1.0",
    b"12345678901234567890", b"5.0e3", b"-0.0", b"abc\r\ndef",
]  # fmt: skip
INTEGERS = [
    b"0", b"1", b"-1", b"2", b"5", b"-5", b"100", b"2147483647", b"2147483648", b"-2147483649",
    b"4294967296", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808",
    b"-9223372036854775809", b"1.5", b"abc", b"", b" 1", b"+1", b"01", b"-0",
]  # fmt: skip
OFFSETS = [
    b"0", b"1", b"-1", b"3", b"10", b"-10", b"300", b"70000", b"536870912", b"4294967296", b"x",
    b"9223372036854775807", b"-9223372036854775808",
]  # fmt: skip
DOUBLES = [
    b"0", b"1.5", b"-2.25", b"1e10", b"1e-10", b"3.0", b"inf", b"-inf", b"nan", b"abc", b"", b"1e308",
    b"1.7e4932", b"0.1", b"-0.1", b"5e3", b"+2", b" 2", b"0x1p3", b"1e400", b"123456789.123456789",
]  # fmt: skip
PATTERNS = [
    b"*", b"?", b"k*", b"[a-c]", b"[^a]", b"\\*", b"key:[12]", b"", b"**", b"[", b"*y*", b"h?llo",
]  # fmt: skip
DATABASES = [b"0", b"1", b"2", b"15", b"16", b"-1", b"x", b"99999999999"]
LARGEST_OFFSET = 70000  # a string grown to half a gigabyte on both sides tests only patience


def tree(reply):
    """The nested arrays of COMMAND DOCS as dictionaries."""
    return {reply[i].decode(): reply[i + 1] for i in range(0, len(reply), 2)}


class Table:
    """The commands both servers know, with the argument trees of the reference."""

    def __init__(self, pair, known):
        """`known` bounds the table where the server under test is the reference itself."""
        ours, theirs = (connection.do("COMMAND", "LIST") for connection in pair.control)
        common = {name.decode().lower() for name in ours} & {name.decode() for name in theirs}
        if pair.same_program:
            common &= set(known)
        self.common = sorted(common)
        docs = tree(pair.control[1].do("COMMAND", "DOCS"))
        # A command that waits for another client, or turns the connection into a push stream,
        # has no place in a stream that is answered one reply per command.
        for info in pair.control[1].do("COMMAND", "INFO"):
            if info and {b"blocking", b"pubsub"} & set(info[2]):
                self.common = [name for name in self.common if name != info[0].decode()]
        self.arguments = {}
        for name in self.common:
            if name in LEFT_OUT or name not in docs:
                continue
            described = tree(docs[name])
            self.add(name, described)
            # A container is drawn through its subcommands, and alone, which is an error.
            for subcommand, inner in tree(described.get("subcommands", [])).items():
                if subcommand not in LEFT_OUT:
                    self.add(subcommand, tree(inner))
        # Of COMMAND's subcommands those two are drawn that take a whole command as their arguments.
        self.names = [name for name in self.arguments if not name.startswith("command|")]
        self.tokens = sorted(
            {token for each in self.arguments.values() for token in tokens_of(each)}
        ) or [b"NX"]

    def add(self, name, described):
        self.arguments[name] = [tree(argument) for argument in described.get("arguments", [])]


def tokens_of(arguments):
    for argument in arguments:
        if argument.get("token"):
            yield argument["token"]
        yield from tokens_of([tree(inner) for inner in argument.get("arguments", [])])


class Stream:
    """An endless, reproducible stream of commands."""

    def __init__(self, table, seed):
        self.table = table
        self.random = random.Random(seed)
        self.now_ms = int(time.time() * 1000)

    def command(self):
        while True:
            name = self.random.choice(self.table.names)
            if self.random.random() < RARE.get(name, 1.0):
                break
        if name == "command":
            return self.guarded(self.key_question())
        command = [*self.spelled(name), *self.draw(self.table.arguments[name], name)]
        if self.random.random() < 0.12:
            command = self.damaged(command)
        return self.guarded(command)

    def spelled(self, name):
        """A command's name in either case; a subcommand's as two words."""
        return (name.upper() if self.random.random() < 0.7 else name).encode().split(b"|")

    def key_question(self):
        inner = self.random.choice(self.table.names)
        question = self.random.choice([b"GETKEYS", b"GETKEYSANDFLAGS"])
        arguments = self.draw(self.table.arguments[inner], inner)
        return [b"COMMAND", question, *self.spelled(inner), *arguments]

    def draw(self, arguments, command):
        out = []
        for argument in arguments:
            flags = argument.get("flags", [])
            if b"optional" in flags and self.random.random() < 0.6:
                continue
            for turn in range(self.random.randint(1, 4) if b"multiple" in flags else 1):
                token = argument.get("token")
                if token is not None and argument["type"] != b"pure-token":
                    if turn == 0 or b"multiple_token" in flags:
                        out.append(token)
                out += self.value(argument, command)
        return out

    def value(self, argument, command):
        kind = argument["type"].decode()
        name = argument["name"].decode().lower()
        inner = [tree(each) for each in argument.get("arguments", [])]
        if kind == "oneof":
            return self.draw([dict(self.random.choice(inner), flags=[])], command)
        if kind == "block":
            return self.draw(inner, command)
        if kind == "pure-token":
            return [argument["token"]]
        if kind == "key":
            return [self.random.choice(KEYS)]
        if kind == "pattern":
            return [self.random.choice(PATTERNS)]
        if kind == "unix-time" or "time" in name or "second" in name:
            return [self.moment(kind, name, command)]
        if "db" in name or name.startswith("index"):
            return [self.random.choice(DATABASES)]
        if kind == "integer":
            pool = OFFSETS if name in ("offset", "start", "end", "stop") else INTEGERS
            return [self.random.choice(pool)]
        if kind == "double":
            return [self.random.choice(DOUBLES)]
        return [self.random.choice(VALUES)]

    def moment(self, kind, name, command):
        """A time to live or a deadline: far away, past, or no time at all, but never soon."""
        roll = self.random.random()
        if roll < 0.12:
            return self.random.choice(INTEGERS[:1] + INTEGERS[2:3] + INTEGERS[7:])
        milliseconds = "milli" in name or command.startswith("p")
        # Far apart from each other, so that GT and LT never hang on the millisecond of arrival.
        ttl_s = self.random.randrange(1000, 10_000_000, 137)
        if kind == "unix-time" or "unix" in name or command.endswith("expireat"):
            at_s = self.now_ms // 1000 + (ttl_s if roll < 0.9 else -ttl_s)
            return b"%d" % (at_s * 1000 if milliseconds else at_s)
        ttl = ttl_s if roll < 0.9 else -ttl_s
        return b"%d" % (ttl * 1000 if milliseconds else ttl)

    def damaged(self, command):
        place = self.random.randrange(1, len(command) + 1)
        kind = self.random.randrange(4)
        if kind == 0 and place < len(command):
            return command[:place] + command[place + 1 :]
        if kind == 1:
            return command[:place] + [self.random.choice(self.table.tokens)] + command[place:]
        if kind == 2 and place < len(command):
            value = self.random.choice(VALUES + self.table.tokens)
            return command[:place] + [value] + command[place + 1 :]
        return command + [self.random.choice(VALUES + KEYS)]

    def guarded(self, command):
        """The command, unless it would grow a string by hundreds of megabytes or expire a key soon."""
        name = command[0].upper()
        for i, arg in enumerate(command):
            # A damaged SET k v EX 1 would expire on one side while the other is being asked.
            before = command[i - 1].upper() if i else b""
            if before in (b"EX", b"PX") or (
                i == 2 and name in (b"EXPIRE", b"PEXPIRE", b"SETEX", b"PSETEX")
            ):
                if re.fullmatch(rb"[0-9]+", arg) and 0 < int(arg) < 100_000:
                    command[i] = b"%d" % (self.random.randrange(1000, 100_000) * 1000)
        # Last, since the number of a SETRANGE may stand behind a key named PX.
        if name in (b"SETRANGE", b"SETBIT") and len(command) > 2:
            if re.fullmatch(rb"[0-9]+", command[2]):
                if LARGEST_OFFSET < int(command[2]) < 536870912 * (8 if name == b"SETBIT" else 1):
                    command[2] = b"%d" % LARGEST_OFFSET
        if name in (b"DEBUG", b"SHUTDOWN"):
            command[0] = b"PING"
        return command


def run_commands(pair, commands, protocol):
    """Sends the commands to both in pipelines. The index of the first difference, or None."""
    pair.clear()
    # DBSIZE counts a key whose time has come until somebody removes it. Only commands may, which
    # both do at the same place; the background removal comes when it comes.
    for connection in pair.control:
        connection.raw("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    connections = pair.connect()
    try:
        if protocol == 3:
            for connection in connections:
                connection.raw("HELLO", "3")
        for start in range(0, len(commands), 100):
            part = commands[start : start + 100]
            data = b"".join(encode(command) for command in part)
            # Both work at the same time: the second is sent to before the first is read.
            for connection in connections:
                connection.send(data)
            ours, theirs = (exchange(connection, b"", len(part)) for connection in connections)
            for i, command in enumerate(part):
                left = ours[i] if i < len(ours) else b"<nothing>"
                right = theirs[i] if i < len(theirs) else b"<nothing>"
                unordered = command[0].lower() in UNORDERED
                if not pair.agree(command, left, right, unordered=unordered):
                    return start + i, f"ours   {show(left)}\n  theirs {show(right)}"
        difference = pair.data_sets_differ()
        if difference:
            return len(commands), f"data sets differ: {difference}"
        return None
    finally:
        for connection in connections:
            connection.close()


def minimised(pair, commands, protocol, limit_s=15.0):
    """The same failure with as few commands before it as a bounded search finds."""
    deadline = time.monotonic() + limit_s
    step = max(len(commands) // 2, 1)
    while step >= 1:
        start = 0
        while start < len(commands) - 1 and time.monotonic() < deadline:
            shorter = commands[:start] + commands[min(start + step, len(commands) - 1) :]
            failure = run_commands(pair, shorter, protocol)
            if failure is not None and failure[0] >= len(shorter) - 1:
                commands = shorter
            else:
                start += step
        step //= 2
    return commands


def run_stream(pair, table, seed, steps, protocol, tally):
    """One seed in one protocol: one check."""
    stream = Stream(table, seed)
    commands = [stream.command() for _ in range(steps)]
    failure = run_commands(pair, commands, protocol)
    if failure is None:
        return tally.check("", True)
    index, detail = failure
    last = minimised(pair, commands[: index + 1], protocol)
    lines = "\n    ".join(quote(command)[:300] for command in last[-30:])
    return tally.check(
        f"random stream --seed {seed} --steps {steps} --protocol {protocol}, at command {index}",
        False,
        f"{detail}\n  {len(last)} commands show it, the last of them:\n    {lines}",
    )
