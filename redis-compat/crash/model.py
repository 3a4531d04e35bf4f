"""What a writer's keys must look like: every command of its stream, applied to plain dictionaries.

A writer is one connection and owns its keys, so its state depends on how far its own stream came and
on nothing else. Values are bytes; deadlines are so far away that none ends during a run.
"""

import random

from support.resp import encode

SMALL_KEYS = 40


class Writer:
    """A command stream, the commands that are under way, and the state after those acknowledged."""

    def __init__(self, number, seed, big_bytes):
        self.prefix = f"w{number}:".encode()
        self.random = random.Random(f"{seed}/{number}")
        self.big_bytes = big_bytes
        self.state = {}  # key -> (value, whether it has a deadline)
        self.ahead = {}  # the same with everything under way applied: what the next reply must be
        self.in_flight = []  # (command, expected reply), oldest first
        self.acknowledged = 0
        self.counter_acknowledged = 0
        self.counter_sent = 0

    def key(self):
        return self.prefix + b"%d" % self.random.randrange(SMALL_KEYS)

    def number_key(self):
        return self.prefix + b"n%d" % self.random.randrange(5)

    def value(self):
        roll = self.random.random()
        if self.big_bytes and roll < 0.004:
            size = self.random.randrange(self.big_bytes // 8, self.big_bytes)
        else:
            size = self.random.choice((0, 1, 8, 20, 44, 100, 300, 1000))
        return self.random.randbytes(8) * (size // 8) + self.random.randbytes(size % 8)

    def next_command(self):
        """Draws a command, sends nothing: returns its bytes and notes the reply it must get."""
        roll = self.random.random()
        if roll < 0.30:
            command = [b"SET", self.key(), self.value()]
        elif roll < 0.42:
            command = [b"INCR", self.number_key()]
        elif roll < 0.52:
            command = [b"APPEND", self.key(), self.random.randbytes(self.random.randrange(30))]
        elif roll < 0.62:
            seconds = self.random.randrange(10**5, 10**6)
            command = [b"SETEX", self.key(), b"%d" % seconds, self.value()]
        elif roll < 0.72:
            command = [b"DEL", self.key(), self.key()]
        elif roll < 0.80:
            command = [b"RENAME", self.key(), self.key()]
        elif roll < 0.90:
            command = [b"MSET"]
            for _ in range(self.random.randrange(2, 6)):
                command += [self.key(), self.random.randbytes(12)]
        elif roll < 0.94:
            command = [b"PERSIST", self.key()]
        elif roll < 0.97:
            command = [b"EXPIRE", self.key(), b"1000000"]
        else:
            command = [b"INCR", b"shared:counter"]
            self.counter_sent += 1
        reply = apply(self.ahead, command)
        self.in_flight.append((command, reply))
        return encode(command)

    def acknowledge(self, reply):
        """Takes one reply; returns what is wrong with it, or None."""
        if not self.in_flight:
            return f"a reply that nothing asked for: {reply!r:.100}"
        command, expected = self.in_flight.pop(0)
        apply(self.state, command)
        self.acknowledged += 1
        if command[1] == b"shared:counter":
            self.counter_acknowledged += 1
            return None if reply.startswith(b":") else f"{command!r} got {reply!r}"
        if reply != expected:
            return f"{command!r:.200} got {reply!r:.100}, expected {expected!r:.100}"
        return None

    def settle(self, found):
        """Compares what a restarted server holds with what it may hold; goes on from there.

        Everything acknowledged must be there, followed by none, some or all of the commands under
        way, each whole and in order. Returns what is wrong, or None.
        """
        waiting, self.in_flight = [command for command, _ in self.in_flight], []
        state = dict(self.state)
        # Only keys that differ now can be what the commands under way still have to explain.
        wrong = {key for key in set(state) | set(found) if state.get(key) != found.get(key)}
        taken = 0
        for command in waiting:
            if not wrong:
                break
            touched = keys_of(command)
            apply(state, command)
            taken += 1
            for key in touched:
                if state.get(key) == found.get(key):
                    wrong.discard(key)
                else:
                    wrong.add(key)
        explained = not wrong
        self.state, self.ahead = dict(found), dict(found)
        if explained:
            return None
        key = sorted(wrong)[0]
        return (
            f"{self.prefix.decode()} after {self.acknowledged} acknowledged and {taken} of "
            f"{len(waiting)} under way: key {key!r} is {found.get(key)!r:.120}, "
            f"should be {state.get(key)!r:.120}; {len(wrong)} keys are wrong"
        )


def keys_of(command):
    name = command[0]
    if name == b"MSET":
        return command[1::2]
    if name in (b"DEL", b"RENAME"):
        return command[1:]
    return [] if command[1] == b"shared:counter" else command[1:2]


def apply(state, command):
    """Runs one command on a state and returns the reply a server must give."""
    name, key = command[0], command[1]
    if key == b"shared:counter":
        return None
    if name == b"SET":
        state[key] = (command[2], False)
        return b"+OK\r\n"
    if name == b"SETEX":
        state[key] = (command[3], True)
        return b"+OK\r\n"
    if name == b"MSET":
        for i in range(1, len(command), 2):
            state[command[i]] = (command[i + 1], False)
        return b"+OK\r\n"
    if name == b"INCR":
        value, deadline = state.get(key, (b"0", False))
        state[key] = (b"%d" % (int(value) + 1), deadline)
        return b":%s\r\n" % state[key][0]
    if name == b"APPEND":
        value, deadline = state.get(key, (b"", False))
        state[key] = (value + command[2], deadline)
        return b":%d\r\n" % len(state[key][0])
    if name == b"DEL":
        return b":%d\r\n" % sum(state.pop(each, None) is not None for each in command[1:])
    if name == b"RENAME":
        if key not in state:
            return b"-ERR no such key\r\n"
        state[command[2]] = state.pop(key)
        return b"+OK\r\n"
    if name == b"PERSIST":
        had = key in state and state[key][1]
        if had:
            state[key] = (state[key][0], False)
        return b":%d\r\n" % had
    if name == b"EXPIRE":
        if key in state:
            state[key] = (state[key][0], True)
        return b":%d\r\n" % (key in state)
    raise AssertionError(name)
