"""Reads differences.md: what may differ from redis-server, and nothing else may.

A row of the table is `| id | command | mask | reason |`. The command is a regular expression over
the whole command line; the mask says what is left out of the comparison:

    any             the reply is not compared
    kind            only the reply's first byte is compared
    strip REGEX     what matches is taken out of both replies first
    keep REGEX      only what matches is compared, in order
    without NAMES   map entries with these names are taken out of both replies first, at any depth
    common          of elements that have a name, those that both replies have are compared
    data            the data sets afterwards (REGEX of the command is matched against the key)
    absent          CrabCache alone knows this command
"""

import pathlib
import re

from support.resp import decode

TABLE = pathlib.Path(__file__).resolve().parents[1] / "differences.md"


VERBS = ("any", "kind", "strip", "keep", "without", "common", "data", "absent")


def serialize(value):
    """A decoded reply as bytes again."""
    kind, inner = value
    head = kind.encode()
    if isinstance(inner, list):
        count = len(inner) // 2 if kind == "%" else len(inner)
        return head + b"%d\r\n" % count + b"".join(serialize(each) for each in inner)
    if inner is None:
        return head + b"-1\r\n"
    if kind in "$=!":
        return head + b"%d\r\n%s\r\n" % (len(inner), inner)
    return head + inner + b"\r\n"


def without(value, names):
    """A decoded reply less the map entries with these names. In RESP2 a map is a flat array."""
    kind, inner = value
    if not isinstance(inner, list):
        return value
    kept, i = [], 0
    while i < len(inner):
        if i % 2 == 0 and i + 1 < len(inner) and inner[i][0] == "$" and inner[i][1] in names:
            i += 2
            continue
        kept.append(without(inner[i], names))
        i += 1
    return (kind, kept)


def name_of(value):
    """The name of a bulk string or of an array that opens with one; None for anything else."""
    kind, inner = value
    if isinstance(inner, list):
        return name_of(inner[0]) if inner and not isinstance(inner[0][1], list) else None
    return inner if kind == "$" else None


def agree_on_common(ours, theirs):
    """Whether two decoded replies say the same of everything that both of them name."""
    left, right = ours[1], theirs[1]
    if ours == theirs:
        return True
    if ours[0] != theirs[0] or not isinstance(left, list) or not isinstance(right, list):
        return False
    if left and right and all(name_of(each) is not None for each in left + right):
        named = {name_of(each): each for each in right}
        return all(
            agree_on_common(each, named[name_of(each)]) for each in left if name_of(each) in named
        )
    if all(each[0] == "+" for each in left + right):
        return sorted(left) == sorted(right)
    return len(left) == len(right) and all(map(agree_on_common, left, right))


class Row:
    def __init__(self, identifier, command, mask, reason):
        self.identifier = identifier
        self.command = re.compile(command, re.IGNORECASE | re.DOTALL)
        self.verb, _, pattern = mask.partition(" ")
        if self.verb not in VERBS:
            raise ValueError(f"differences.md: row {identifier}: unknown mask {mask}")
        self.pattern = re.compile(pattern.encode(), re.DOTALL)
        self.names = set(pattern.encode().split())
        self.reason = reason
        self.used = False

    def same(self, ours, theirs):
        if self.verb == "any":
            return True
        if self.verb == "kind":
            return ours[:1] == theirs[:1]
        if self.verb == "common":
            return agree_on_common(decode(ours), decode(theirs))
        return self.masked(ours) == self.masked(theirs)

    def masked(self, reply):
        """A reply without what the row excuses, and without the lengths that depend on it."""
        if self.verb == "without":
            return serialize(without(decode(reply), self.names))
        if self.verb == "strip":
            reply = self.pattern.sub(b"", reply)
        else:
            reply = b"\n".join(match[0] for match in self.pattern.finditer(reply))
        return re.sub(rb"[$=!]\d+\r\n", b"$\r\n", reply)


class Differences:
    def __init__(self, path=TABLE):
        self.rows = []
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != 4 or cells[0] == "id" or set(cells[0]) <= set("-: "):
                continue
            identifier, command, mask, reason = cells
            clean = [cell.strip("`").replace("\\|", "|") for cell in (command, mask)]
            if not reason:
                raise ValueError(f"differences.md: row {identifier} gives no reason")
            self.rows.append(Row(identifier, clean[0], clean[1], reason))

    def accepts(self, command, ours, theirs):
        """Whether a row excuses these two replies. Rows are tried alone, then all together."""
        if ours.startswith(b"<") or theirs.startswith(b"<"):
            return False  # no reply at all is no accepted difference
        rows = [
            row
            for row in self.rows
            if row.verb not in ("data", "absent") and row.command.fullmatch(command)
        ]
        for row in rows:
            if row.same(ours, theirs):
                row.used = True
                return True
        # A reply with several accepted differences needs several rows.
        for row in rows:
            if row.verb in ("strip", "without"):
                ours, theirs = row.masked(ours), row.masked(theirs)
        if ours == theirs or any(row.verb == "common" and row.same(ours, theirs) for row in rows):
            for row in rows:
                row.used = True
            return True
        return False

    def accepts_data(self, key):
        for row in self.rows:
            if row.verb == "data" and row.command.fullmatch(key):
                row.used = True
                return True
        return False

    def accepts_absent(self, command):
        for row in self.rows:
            if row.verb == "absent" and row.command.fullmatch(command):
                row.used = True
                return True
        return False

    def unused(self):
        return [row for row in self.rows if not row.used]
