#!/usr/bin/env python3
"""A mixed load on a running server, checked as it goes, for the sanitizers.

  mixed_load.py run SOCKET STATE      loads the server, checks every reply, writes what must be there
  mixed_load.py verify SOCKET STATE   checks that it is there, after a restart

Each client owns some keys, whose values it knows, and counts on keys that all share, whose sum must
be exact in the end. Others meanwhile ask for everything at once, change the configuration, come and
go, kill each other and send rubbish."""
import json
import os
import random
import socket
import sys
import threading

CLIENTS = 6
STEPS = 1500
SHARED = 4


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(words)
        request += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(request)

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=":
            if rest == b"-1":
                return None
            return self.file.read(int(rest) + 2)[:-2]
        if kind in b"*~>":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        if kind == b"%":
            return {self.read(): self.read() for _ in range(int(rest))}
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        return line[:-2]

    def run(self, *words):
        self.send(*words)
        return self.read()

    def close(self):
        self.file.close()
        self.socket.close()


class Load:
    def __init__(self, path, state_path):
        self.path = path
        self.state_path = state_path
        self.errors = []
        self.state = {"own": {}, "counts": {}}
        if os.path.exists(state_path):
            with open(state_path) as file:
                self.state = json.load(file)
        self.lock = threading.Lock()
        self.done = threading.Event()

    def expect(self, got, wanted, what):
        if got != wanted:
            self.errors.append(f"{what}: got {got!r}, wanted {wanted!r}")

    def owner(self, number):
        chance = random.Random(number)
        connection = Connection(self.path)
        own = {}
        counts = [0] * SHARED
        for step in range(STEPS):
            key = f"own:{number}:{chance.randrange(20)}"
            value = f"{step}:" + "x" * chance.choice([3, 50, 300, 20000])
            action = chance.randrange(7)
            if action == 0:
                self.expect(connection.run("SET", key, value), b"+OK", "SET")
                own[key] = value
            elif action == 1:
                self.expect(connection.run("GET", key), own[key].encode() if key in own else None,
                            "GET")
            elif action == 2:
                self.expect(connection.run("DEL", key), int(key in own), "DEL")
                own.pop(key, None)
            elif action == 3:
                other = f"own:{number}:{chance.randrange(20)}"
                self.expect(connection.run("MSET", key, "m", other, value), b"+OK", "MSET")
                own[key] = "m"
                own[other] = value
            elif action == 4:
                keys = [f"own:{number}:{i}" for i in range(20)]
                self.expect(connection.run("MGET", *keys),
                            [own[k].encode() if k in own else None for k in keys], "MGET")
            else:
                which = chance.randrange(SHARED)
                for _ in range(5):
                    connection.send("INCR", f"shared:{which}")
                last = 0
                for _ in range(5):
                    reply = connection.read()
                    if not isinstance(reply, int) or reply <= last:
                        self.errors.append(f"INCR answered {reply!r} after {last}")
                        break
                    last = reply
                counts[which] += 5
        connection.close()
        with self.lock:
            for i in range(20):
                self.state["own"].pop(f"own:{number}:{i}", None)
            self.state["own"].update(own)
            for i, count in enumerate(counts):
                name = f"shared:{i}"
                self.state["counts"][name] = self.state["counts"].get(name, 0) + count

    def asker(self):
        connection = Connection(self.path)
        connection.run("SELECT", "9")  # its FLUSHDB is not for what the owners have
        chance = random.Random(99)
        while not self.done.is_set():
            reply = connection.run(*chance.choice([
                ("DBSIZE",), ("INFO",), ("CLIENT", "LIST"), ("SCAN", "0", "COUNT", "50"),
                ("RANDOMKEY",), ("KEYS", "shared:*"), ("CONFIG", "GET", "*"), ("STATS",),
                ("CONFIG", "SET", "timeout", str(chance.randrange(1000, 2000))),
                ("CONFIG", "SET", "hz", str(chance.randrange(10, 20))), ("CONFIG", "RESETSTAT"),
                ("SET", "volatile", "v", "PX", str(chance.randrange(1, 40))),
                ("SWAPDB", "14", "15"), ("FLUSHDB",), ("OBJECT", "ENCODING", "volatile"),
                ("RENAME", "volatile", "volatile2"), ("COPY", "volatile2", "volatile", "REPLACE"),
                ("CLIENT", "PAUSE", "1", "WRITE"), ("MEMORY", "USAGE", "shared:0"),
                ("COMMAND", "COUNT"), ("WAITAOF", "1", "0", "1"), ("LCS", "volatile", "volatile2"),
            ]))
            if isinstance(reply, bytes) and reply.startswith(b"-ERR unknown command"):
                self.errors.append(f"{reply!r}")
        connection.close()

    def comer(self):
        chance = random.Random(7)
        while not self.done.is_set():
            victim = Connection(self.path)
            killer = Connection(self.path)
            number = victim.run("CLIENT", "ID")
            victim.run("HELLO", "3", "SETNAME", "victim")
            self.expect(killer.run("CLIENT", "KILL", "ID", number), 1, "CLIENT KILL")
            try:
                victim.run("PING")
                victim.run("PING")
                self.errors.append("a killed client was answered twice")
            except (ConnectionError, OSError):
                pass
            victim.close()
            try:
                killer.socket.sendall(bytes(chance.randrange(256) for _ in range(300)))
                killer.socket.shutdown(socket.SHUT_WR)
                while killer.socket.recv(65536):
                    pass
            except OSError:
                pass
            killer.close()

    def guard(self, work, *arguments):
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001: whatever it is, the load has failed
            self.errors.append(f"{work.__name__}: {error!r}")

    def run(self):
        background = [threading.Thread(target=self.guard, args=(work,))
                      for work in (self.asker, self.comer)]
        owners = [threading.Thread(target=self.guard, args=(self.owner, number))
                  for number in range(CLIENTS)]
        # The owners begin with what an earlier run left under their names: nothing.
        connection = Connection(self.path)
        if self.state["own"]:
            connection.run("DEL", *self.state["own"])
            self.state["own"] = {}
        for thread in background + owners:
            thread.start()
        for thread in owners:
            thread.join()
        self.done.set()
        for thread in background:
            thread.join()
        connection.close()
        self.verify()
        with open(self.state_path, "w") as file:
            json.dump(self.state, file)

    def verify(self):
        connection = Connection(self.path)
        for name, count in self.state["counts"].items():
            self.expect(connection.run("GET", name), str(count).encode(), name)
        for name, value in self.state["own"].items():
            self.expect(connection.run("GET", name), value.encode(), name)
        connection.close()


def main():
    load = Load(sys.argv[2], sys.argv[3])
    load.guard(load.run if sys.argv[1] == "run" else load.verify)
    for error in load.errors[:20]:
        print(error)
    print(f"{len(load.state['own'])} keys, {sum(load.state['counts'].values())} increments, "
          f"{len(load.errors)} errors")
    return 1 if load.errors else 0


sys.exit(main())
