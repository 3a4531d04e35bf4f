"""RESP as raw bytes: replies are cut out of the stream exactly as they were sent, never rewritten.

Parsing into values (`decode`) is a second step, for comparisons that must look inside a reply.
"""

import re
import socket
import time


class Closed(Exception):
    """The server closed the connection; `rest` is what arrived and is no whole reply."""

    def __init__(self, rest=b""):
        super().__init__(f"connection closed with {rest[:80]!r} unread")
        self.rest = rest


class Slow(Exception):
    """No whole reply within the deadline."""


class Incomplete(Exception):
    pass


def encode(args):
    """One command as the array of bulk strings that client libraries send."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        if isinstance(arg, str):
            arg = arg.encode()
        elif isinstance(arg, int):
            arg = b"%d" % arg
        parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(parts)


def reply_end(buffer, start=0):
    """The offset behind the reply that starts at `start`; Incomplete when it is not all there."""
    newline = buffer.find(b"\r\n", start)
    if newline < 0:
        raise Incomplete
    kind = buffer[start : start + 1]
    after = newline + 2
    if kind in (b"$", b"=", b"!"):
        length = int(buffer[start + 1 : newline])
        if length < 0:
            return after
        if len(buffer) < after + length + 2:
            raise Incomplete
        return after + length + 2
    if kind in (b"*", b"~", b">", b"%", b"|"):
        count = int(buffer[start + 1 : newline])
        if kind in (b"%", b"|"):
            count *= 2
        for _ in range(max(count, 0)):
            after = reply_end(buffer, after)
        # An attribute is no reply of its own: it decorates the one that follows.
        return reply_end(buffer, after) if kind == b"|" else after
    return after


def decode(raw):
    """A raw reply as (kind, value); the value of an aggregate is a list of such pairs."""
    return _decode(raw, 0)[0]


def _decode(raw, start):
    newline = raw.index(b"\r\n", start)
    kind = chr(raw[start])
    head = raw[start + 1 : newline]
    after = newline + 2
    if kind in "$=!":
        length = int(head)
        if length < 0:
            return (kind, None), after
        return (kind, raw[after : after + length]), after + length + 2
    if kind in "*~>%":
        count = int(head)
        if count < 0:
            return (kind, None), after
        if kind == "%":
            count *= 2
        values = []
        for _ in range(count):
            value, after = _decode(raw, after)
            values.append(value)
        return (kind, values), after
    return (kind, head), after


def plain(value):
    """A decoded reply without its kinds: bytes, lists, integers, None."""
    kind, inner = value
    if inner is None or kind == "_":
        return None
    if kind == ":":
        return int(inner)
    if isinstance(inner, list):
        return [plain(each) for each in inner]
    return inner


class Connection:
    """One blocking connection. Every wait ends: with a reply, with Closed or with Slow."""

    def __init__(self, address, timeout_s=10.0):
        self.timeout_s = timeout_s
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the server answered before it closed is still to be read

    def reply(self, timeout_s=None):
        """The next whole reply, raw."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            if self.buffer:
                try:
                    end = reply_end(self.buffer)
                    raw, self.buffer = self.buffer[:end], self.buffer[end:]
                    return raw
                except Incomplete:
                    pass
            self._receive(deadline)

    def replies(self, count):
        return [self.reply() for _ in range(count)]

    def _receive(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Slow(f"no whole reply in time; {self.buffer[:80]!r} so far")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 20)
        except socket.timeout:
            raise Slow(f"no whole reply in time; {self.buffer[:80]!r} so far") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def read_to_end(self, timeout_s=None):
        """All that comes until the server closes the connection."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            try:
                self._receive(deadline)
            except Closed as closed:
                self.buffer = b""
                return closed.rest

    def raw(self, *args):
        self.send(encode(args))
        return self.reply()

    def do(self, *args):
        """Runs a command for a program's own needs: a plain value, or an exception for an error."""
        value = decode(self.raw(*args))
        if value[0] in "-!":
            raise RuntimeError(value[1].decode(errors="replace"))
        return plain(value)

    def pipeline(self, commands):
        self.send(b"".join(encode(command) for command in commands))
        return [plain(decode(self.reply())) for _ in commands]


_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a", "\\": b"\\", '"': b'"'}
_REPEAT = re.compile(rb"%\{(.+?)\*(\d+)\}", re.DOTALL)


def unescape(text):
    r"""Text with \xNN, \r, \n ... and %{x*1000} (x, a thousand times) as bytes."""
    out = bytearray()
    i = 0
    while i < len(text):
        if text[i] == "\\" and i + 1 < len(text):
            if text[i + 1] == "x" and re.match(r"[0-9a-fA-F]{2}", text[i + 2 : i + 4]):
                out.append(int(text[i + 2 : i + 4], 16))
                i += 4
                continue
            out += _ESCAPES.get(text[i + 1], text[i + 1].encode())
            i += 2
            continue
        out += text[i].encode()
        i += 1
    return _REPEAT.sub(lambda match: match[1] * int(match[2]), bytes(out))


def split_line(line):
    """A line in redis-cli's quoting as a list of arguments."""
    args = []
    i = 0
    while True:
        while i < len(line) and line[i] in " \t":
            i += 1
        if i >= len(line):
            return args
        if line[i] in "\"'":
            quote = line[i]
            i += 1
            start = i
            while i < len(line) and line[i] != quote:
                i += 2 if line[i] == "\\" else 1
            if i >= len(line):
                raise ValueError(f"unbalanced quotes: {line}")
            word = line[start:i]
            args.append(unescape(word) if quote == '"' else word.replace("\\'", "'").encode())
            i += 1
        else:
            start = i
            while i < len(line) and line[i] not in " \t":
                i += 1
            args.append(_REPEAT.sub(lambda m: m[1] * int(m[2]), line[start:i].encode()))


def quote(args):
    """Arguments as a line that redis-cli and a case file would read back."""
    words = []
    for arg in args:
        if isinstance(arg, str):
            arg = arg.encode()
        if arg and all(33 <= byte < 127 and byte not in b"\"'\\" for byte in arg):
            words.append(arg.decode())
        else:
            words.append(
                '"'
                + "".join(
                    chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in arg
                )
                + '"'
            )
    return " ".join(words)
