"""Reads differences.md: what may differ from redis-server, and nothing else may.

A row of the table is `| id | command | mask | reason |`. The command is a regular expression over
the whole command line; the mask says what is left out of the comparison:

    any             the reply is not compared
    kind            only the reply's first byte is compared
    strip REGEX     what matches is taken out of both replies first
    keep REGEX      only what matches is compared, in order
    data            the data sets afterwards (REGEX of the command is matched against the key)
    absent          CrabCache alone knows or lacks this command: it is not compared at all
"""

import pathlib
import re

TABLE = pathlib.Path(__file__).resolve().parents[1] / "differences.md"


class Row:
    def __init__(self, identifier, command, mask, reason):
        self.identifier = identifier
        self.command = re.compile(command, re.IGNORECASE | re.DOTALL)
        self.verb, _, pattern = mask.partition(" ")
        if self.verb not in ("any", "kind", "strip", "keep", "data", "absent"):
            raise ValueError(f"differences.md: row {identifier}: unknown mask {mask}")
        self.pattern = re.compile(pattern.encode(), re.DOTALL)
        self.reason = reason
        self.used = False

    def same(self, ours, theirs):
        if self.verb == "any":
            return True
        if self.verb == "kind":
            return ours[:1] == theirs[:1]
        return self.masked(ours) == self.masked(theirs)

    def masked(self, reply):
        """A reply without what the row excuses, and without the lengths that depend on it."""
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
        rows = [
            row
            for row in self.rows
            if row.verb not in ("data", "absent") and row.command.fullmatch(command)
        ]
        for row in rows:
            if row.same(ours, theirs):
                row.used = True
                return True
        strips = [row for row in rows if row.verb == "strip"]
        for row in strips:
            ours, theirs = row.masked(ours), row.masked(theirs)
        if len(strips) > 1 and ours == theirs:
            for row in strips:
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
