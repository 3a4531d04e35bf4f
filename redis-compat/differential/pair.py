"""The two servers under comparison, and what it means that they agree."""

from support.resp import Closed, Connection, Slow, decode, encode, quote
from support.servers import Server

OPTIONS = ["--appendonly", "no", "--enable-debug-command", "yes"]
REPLY_S = 5.0
# Replies that count time: how far they may lie apart, in their own unit.
TOLERANCES = {
    "TTL": 1, "PTTL": 1500, "EXPIRETIME": 1, "PEXPIRETIME": 1500, "TIME": None, "LASTSAVE": None,
}  # fmt: skip


def tolerates(command, ours, theirs, tolerance=None):
    """Whether two integer replies lie within the command's tolerance. Negative ones are codes."""
    if tolerance is None:
        tolerance = TOLERANCES.get(command[0].decode(errors="replace").upper()) if command else None
    if tolerance is None or ours[:1] != b":" or theirs[:1] != b":":
        return False
    left, right = int(ours[1:]), int(theirs[1:])
    return left >= 0 and right >= 0 and abs(left - right) <= tolerance


def canonical(value):
    """A decoded reply with every aggregate in one order, for replies whose order is free."""
    kind, inner = value
    if not isinstance(inner, list):
        return (kind, inner)
    parts = [canonical(each) for each in inner]
    if kind == "%":
        parts = [(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
    return (kind, sorted(parts, key=repr))


def pairs_of(value):
    """A flat RESP2 map, sorted by its names: CONFIG GET and the like."""
    kind, inner = value
    if kind == "*" and inner and len(inner) % 2 == 0:
        return sorted(((inner[i], inner[i + 1]) for i in range(0, len(inner), 2)), key=repr)
    return canonical(value)


class Pair:
    """Both servers, a control connection to each, and the verdict on replies and data sets."""

    def __init__(self, ours_binary, theirs_binary, differences, threads):
        log_on = ["--wal-enabled", "no", "--threads", str(threads)]
        self.servers = [
            Server(ours_binary, OPTIONS, ours=log_on),
            Server(theirs_binary, OPTIONS),
        ]
        self.same_program = self.servers[0].redis
        self.differences = differences
        self.compared = 0

    def __enter__(self):
        started = []
        try:
            for server in self.servers:
                started.append(server.__enter__())
        except BaseException:
            for server in started:
                server.__exit__()
            raise
        self.control = self.connect()
        return self

    def __exit__(self, *_):
        for connection in self.control:
            connection.close()
        for server in self.servers:
            server.__exit__()

    def connect(self):
        return [Connection(server.address, timeout_s=REPLY_S) for server in self.servers]

    def renew_control(self):
        """A case of CLIENT KILL or CLIENT PAUSE may have cost us the control connections."""
        for side, connection in enumerate(self.control):
            try:
                connection.raw("PING")
            except (Closed, Slow):
                connection.close()
                self.control[side] = Connection(self.servers[side].address)
                self.control[side].raw("AUTH", "secret")  # the one password that cases set

    def clear(self):
        """The state every case starts from, whatever the one before left behind."""
        self.renew_control()
        for connection in self.control:
            connection.send(
                b"".join(
                    encode(command)
                    for command in (
                        ["CLIENT", "UNPAUSE"],
                        ["CONFIG", "SET", "requirepass", ""],
                        ["DEBUG", "SET-ACTIVE-EXPIRE", "1"],
                        ["FLUSHALL"],
                        ["SELECT", "0"],
                    )
                )
            )
            connection.replies(5)

    def agree(self, command, ours, theirs, unordered=False, tolerance=None):
        """Whether two raw replies to one command (its arguments) are the same or excused."""
        self.compared += 1
        if ours == theirs or tolerates(command, ours, theirs, tolerance):
            return True
        if unordered and ours[:1] == theirs[:1] and ours[:1] in b"*~%":
            if canonical(decode(ours)) == canonical(decode(theirs)):
                return True
            if pairs_of(decode(ours)) == pairs_of(decode(theirs)):
                return True
        return self.differences.accepts(quote(command), ours, theirs)

    def data_sets_differ(self):
        """What is different between the two data sets, or None."""
        self.renew_control()
        ours, theirs = (data_set(connection) for connection in self.control)
        for place in sorted(set(ours) | set(theirs)):
            left, right = ours.get(place), theirs.get(place)
            if left is not None and right is not None and same_entry(left, right):
                continue
            # A key whose time came between the two looks is no difference.
            if left is None and 0 <= right[2] < 1500 or right is None and 0 <= left[2] < 1500:
                continue
            if self.differences.accepts_data(quote([place[1]])):
                continue
            return f"database {place[0]} key {place[1]!r}: ours {left}, theirs {right}"
        return None


def same_entry(left, right):
    ttl_close = left[2] == right[2] or (
        left[2] >= 0 and right[2] >= 0 and abs(left[2] - right[2]) <= 1500
    )
    return ttl_close and left[:2] == right[:2] and left[3] == right[3]


# How the whole value of a type is read, in an order that is the same on both sides.
READERS = {
    b"string": lambda key: ["GET", key],
    b"list": lambda key: ["LRANGE", key, 0, -1],
    b"set": lambda key: ["SMEMBERS", key],
    b"hash": lambda key: ["HGETALL", key],
    b"zset": lambda key: ["ZRANGE", key, 0, -1, "WITHSCORES"],
    b"stream": lambda key: ["XRANGE", key, "-", "+"],
}


def data_set(connection, databases=16):
    """Every entry of every database: (database, key) -> (type, value, PTTL, encoding)."""
    commands = []
    for database in range(databases):
        commands += [["SELECT", database], ["KEYS", "*"]]
    keys = connection.pipeline(commands)[1::2]
    entries = {}
    for database, names in enumerate(keys):
        if not names:
            continue
        connection.pipeline([["SELECT", database]])
        types = connection.pipeline([["TYPE", name] for name in names])
        for name, kind in zip(names, types):
            if kind not in READERS:
                continue  # it expired between KEYS and TYPE
            value, ttl, encoding = connection.pipeline(
                [READERS[kind](name), ["PTTL", name], ["OBJECT", "ENCODING", name]]
            )
            if ttl != -2:
                ordered = sorted(value, key=repr) if kind in (b"set", b"hash") else value
                entries[database, name] = (kind, ordered, ttl, encoding)
    connection.pipeline([["SELECT", 0]])
    return entries


def show(raw, limit=400):
    """A raw reply for a person: escaped, and cut when it is long."""
    text = repr(raw)[2:-1]
    return text if len(text) <= limit else f"{text[:limit]}... ({len(raw)} bytes)"


def exchange(connection, data, count=1):
    """Sends bytes and reads `count` replies; a closed or silent connection is a reply too."""
    connection.send(data)
    found = []
    for _ in range(count):
        try:
            found.append(connection.reply())
        except Closed as closed:
            found.append(b"<closed>" + closed.rest)
            break
        except Slow:
            found.append(b"<no reply in time>")
            break
    return found

