"""Runs the hand-written cases: redis-compat/cases/README.md specifies their format."""

import pathlib
import re
import time

from support.resp import Closed, Slow, decode, encode, plain, split_line, unescape

from .pair import exchange, show

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "cases"
SENTINEL = b"the-end-of-this-raw-input"


class Case:
    def __init__(self, file, line, title):
        self.name = f"{file}:{line} {title}"
        self.protocols = (2, 3)
        self.lines = []


def load(path):
    """The cases of one file, in order."""
    cases = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if text.startswith("== "):
            cases.append(Case(path.name, number, text[3:]))
        elif text.startswith("!protocol"):
            cases[-1].protocols = tuple(int(word) for word in text.split()[1:])
        elif text and not text.startswith("#"):
            cases[-1].lines.append((number, text))
    return cases


class Mismatch(Exception):
    pass


class Run:
    """One case in one protocol: the connections it opened and the directives for the next line."""

    def __init__(self, pair, case, protocol):
        self.pair = pair
        self.case = case
        self.protocol = protocol
        self.connections = {}
        self.current = "main"
        self.next = {}
        self.values = {}
        self.problems = []
        self.block = None

    def execute(self):
        self.pair.clear()
        self.reconnect()
        try:
            for number, text in self.case.lines:
                try:
                    self.line(text)
                except Mismatch as mismatch:
                    self.problems.append(f"line {number}: {text[:200]}\n    {mismatch}")
        finally:
            for connections in self.connections.values():
                for connection in connections:
                    connection.close()
        difference = self.pair.data_sets_differ()
        if difference:
            self.problems.append(f"data sets differ: {difference}")
        return self.problems

    def both(self):
        return self.connections[self.current]

    def reconnect(self):
        for connection in self.connections.get(self.current, ()):
            connection.close()
        connections = self.pair.connect()
        self.connections[self.current] = connections
        if self.protocol == 3:
            for connection in connections:
                connection.raw("HELLO", "3")

    def line(self, text):
        if self.block is not None:
            if text == "!end":
                lines, self.block = self.block, None
                self.split(lines)
            else:
                self.block.append(text)
            return
        if text.startswith("!"):
            word, _, rest = text[1:].partition(" ")
            getattr(self, "do_" + word)(rest)
        else:
            self.command(text)

    def words(self, text):
        """A command's arguments per server: `$name` stands for a value that !store kept."""
        args = split_line(text)
        return [
            [
                self.values.get(arg[1:].decode(errors="replace"), (arg, arg))[side]
                if arg.startswith(b"$")
                else arg
                for arg in args
            ]
            for side in (0, 1)
        ]

    def command(self, text):
        options, self.next = self.next, {}
        ours, theirs = self.words(text)
        if "expect" in options:
            if self.pair.same_program:
                return
            found = exchange(self.both()[0], encode(ours))[0]
            if found != options["expect"]:
                raise Mismatch(f"ours     {show(found)}\n    expected {show(options['expect'])}")
            return
        found = [exchange(c, encode(args))[0] for c, args in zip(self.both(), (ours, theirs))]
        if "names" in options:
            found = [re.sub(rb"=[^ \n\r]*", b"=", reply) for reply in found]
            found = [re.sub(rb"^[$=]\d+", b"$", reply) for reply in found]
        if "ignore" in options:
            found = [reply[:1] for reply in found]
        if "sorted" in options:
            found = [b"\n".join(sorted(reply.split(b"\n"))) for reply in found]
        how = {name: options[name] for name in ("unordered", "tolerance") if name in options}
        self.compare(ours, *found, **how)

    def compare(self, command, ours, theirs, **how):
        if not self.pair.agree(command, ours, theirs, **how):
            raise Mismatch(f"ours   {show(ours)}\n    theirs {show(theirs)}")

    # Directives that change how the next command is compared.

    def do_unordered(self, _):
        self.next["unordered"] = True

    def do_sorted(self, _):
        self.next["sorted"] = True

    def do_names(self, _):
        self.next["names"] = True

    def do_tolerance(self, rest):
        self.next["tolerance"] = int(rest)

    def do_ignore(self, reason):
        if not reason:
            raise ValueError(f"{self.case.name}: !ignore needs a reason")
        self.next["ignore"] = True

    def do_expect(self, rest):
        self.next["expect"] = unescape(rest)

    # Directives that act.

    def do_reconnect(self, _):
        self.reconnect()

    def do_conn(self, name):
        self.current = name
        if name not in self.connections:
            self.reconnect()

    def do_store(self, rest):
        """!store NAME COMMAND: keeps each server's own reply for later lines, as $NAME."""
        name, _, text = rest.partition(" ")
        sides = []
        for connection, args in zip(self.both(), self.words(text)):
            value = plain(decode(exchange(connection, encode(args))[0]))
            sides.append(value if isinstance(value, bytes) else str(value).encode())
        self.values[name] = tuple(sides)

    def do_noreply(self, text):
        for connection, args in zip(self.both(), self.words(text)):
            connection.send(encode(args))

    def do_read(self, rest):
        """Reads replies that are still to come: !read [COUNT]."""
        for _ in range(int(rest or 1)):
            self.compare([b"!read"], *(exchange(connection, b"")[0] for connection in self.both()))

    def do_close(self, text):
        """A command after whose reply the server closes the connection."""
        ends = []
        for connection, args in zip(self.both(), self.words(text)):
            connection.send(encode(args))
            ends.append(self.to_end(connection))
        self.compare(split_line(text), *ends)

    def do_closed(self, _):
        """The server has closed this connection, or is about to."""
        self.compare([b"!closed"], *(self.to_end(connection) for connection in self.both()))

    @staticmethod
    def to_end(connection):
        try:
            return connection.read_to_end() + b"<closed>"
        except Slow:
            return connection.buffer + b"<open>"

    def do_raw(self, rest):
        """Bytes as they are, then an ECHO that shows where their replies end."""
        data = unescape(rest)
        replies = []
        for connection in self.both():
            connection.send(data + encode(["ECHO", SENTINEL]))
            whole = b""
            try:
                while not whole.endswith(SENTINEL + b"\r\n"):
                    whole += connection.reply()
            except Closed as closed:
                whole += closed.rest + b"<closed>"
            except Slow:
                whole += connection.buffer + b"<no reply in time>"
            replies.append(whole)
        self.compare([b"!raw", data[:60]], *replies)

    def do_fatal(self, rest):
        """Bytes as they are, to which the server answers by closing the connection."""
        ends = []
        for connection in self.both():
            connection.send(unescape(rest))
            ends.append(self.to_end(connection))
        self.compare([b"!fatal"], *ends)

    def do_dropped(self, rest):
        """As !fatal, but how much was answered before the connection ended is free."""
        ends = []
        for connection in self.both():
            connection.send(unescape(rest))
            ends.append(self.to_end(connection)[-8:])
        self.compare([b"!dropped"], *ends)

    def do_until(self, rest):
        """!until MS COMMAND => REPLY: both servers come to give this reply."""
        limit, _, rest = rest.partition(" ")
        text, _, expected = rest.partition(" => ")
        wanted = unescape(expected)
        deadline = time.monotonic() + int(limit) / 1000
        args = split_line(text)
        for connection in self.both():
            while (found := exchange(connection, encode(args))[0]) != wanted:
                if time.monotonic() > deadline:
                    raise Mismatch(f"still {show(found)} after {limit} ms")
                time.sleep(0.002)

    def do_scan(self, rest):
        """A whole SCAN iteration with these options; the cursors are free, the keys are not."""
        options = split_line(rest)
        found = []
        for connection in self.both():
            cursor, keys, rounds = b"0", set(), 0
            while True:
                reply = exchange(connection, encode(["SCAN", cursor, *options]))[0]
                if not reply.startswith(b"*2\r\n"):
                    raise Mismatch(f"no scan reply: {show(reply)}")
                cursor, names = plain(decode(reply))
                keys.update(names)
                rounds += 1
                if cursor == b"0":
                    break
                if rounds > 100000:
                    raise Mismatch("the cursor never comes back to 0")
            found.append(sorted(keys))
        self.pair.compared += 1
        if found[0] != found[1]:
            raise Mismatch(f"ours {found[0]!r:.300}\n    theirs {found[1]!r:.300}")

    def do_split(self, _):
        """!split ... !end: the commands as one pipeline, cut in two at every byte position."""
        self.block = []

    def split(self, lines):
        commands = [split_line(text) for text in lines]
        data = b"".join(encode(command) for command in commands)
        whole = [exchange(connection, data, len(commands)) for connection in self.both()]
        for ours, theirs, command in zip(*whole, commands):
            self.compare(command, ours, theirs)
        for cut in range(1, len(data)):
            # The reference answered above; what is on trial is our own parser.
            connection = self.both()[0]
            connection.send(data[:cut])
            # The second part must be a read of its own. A round trip of another connection gives
            # a single-threaded server the turn in which it reads the first part.
            self.pair.control[0].raw("PING")
            found = exchange(connection, data[cut:], len(commands))
            self.pair.compared += 1
            if found != whole[0]:
                raise Mismatch(f"cut at byte {cut}: {show(b''.join(found))}")


def run_all(pair, tally, protocols=(2, 3), only=None, verbose=False):
    """Every case of every file in every protocol it is meant for."""
    for path in sorted(FOLDER.glob("*.txt")):
        for case in load(path):
            for protocol in case.protocols:
                name = f"{case.name} [RESP{protocol}]"
                if protocol not in protocols or (only and only not in name):
                    continue
                started = time.monotonic()
                try:
                    problems = Run(pair, case, protocol).execute()
                except (Closed, Slow, OSError) as error:
                    problems = [f"{type(error).__name__}: {error}"]
                    for server in pair.servers:
                        if server.process.poll() is not None:
                            problems.append(f"{server.name} is gone:\n{server.log()[-3000:]}")
                            tally.check(name, False, "\n  ".join(problems))
                            return
                if verbose:
                    print(f"{time.monotonic() - started:6.2f} s {name}")
                tally.check(name, not problems, "\n  ".join(problems))


