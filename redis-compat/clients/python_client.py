"""Uses python3-redis as an application would: python_client.py PORT UNIX_PATH.

Prints RESTART when the server may be restarted, and goes on when a line comes back.
"""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import redis  # noqa: E402

from support.tally import Tally  # noqa: E402


def raises(tally, name, kind, text, call):
    try:
        tally.check(name, False, f"returned {call()!r}")
    except kind as error:
        tally.check(name, text in str(error), str(error))


def strings(tally, client):
    tally.equal("ping", client.ping(), True)
    tally.equal("set", client.set("py:k", "v"), True)
    tally.equal("get", client.get("py:k"), b"v")
    tally.equal("get of nothing", client.get("py:none"), None)
    tally.equal("set nx", client.set("py:k", "w", ex=100, nx=True), None)
    tally.equal("set get", client.set("py:k", "x", px=100000, get=True), b"v")
    tally.check("ttl", 90 < client.ttl("py:k") <= 100)
    tally.equal("mset", client.mset({"py:a": 1, "py:b": 2}), True)
    tally.equal("mget", client.mget("py:a", "py:none", "py:b"), [b"1", None, b"2"])
    tally.equal("incr", client.incr("py:n", 5), 5)
    tally.equal("incrbyfloat", client.incrbyfloat("py:f", 1.5), 1.5)
    tally.equal("append", client.append("py:s", "hello"), 5)
    tally.equal("getrange", client.getrange("py:s", 1, 3), b"ell")
    tally.equal("setrange", client.setrange("py:s", 5, "!"), 6)
    tally.equal("strlen", client.strlen("py:s"), 6)
    tally.equal("getex", client.getex("py:s", ex=100), b"hello!")
    tally.equal("getdel", client.getdel("py:s"), b"hello!")
    tally.equal("lcs", client.lcs("py:a", "py:b"), b"")
    binary = bytes(range(256))
    client.set(binary, binary * 1000)
    tally.equal("binary key and value", client.get(binary), binary * 1000)


def keys(tally, client):
    tally.equal("exists", client.exists("py:k", "py:k", "py:none"), 2)
    tally.equal("type", client.type("py:k"), b"string")
    tally.equal("rename", client.rename("py:a", "py:c"), True)
    tally.equal("renamenx", client.renamenx("py:c", "py:b"), False)
    tally.equal("copy", client.copy("py:b", "py:d"), True)
    tally.equal("expire", client.expire("py:d", 100), True)
    tally.equal("expire gt", client.expire("py:d", 50, gt=True), False)
    tally.equal("persist", client.persist("py:d"), True)
    tally.equal("object", client.object("encoding", "py:b"), b"int")
    tally.equal("delete", client.delete("py:d", "py:none"), 1)
    tally.equal("touch", client.touch("py:b"), 1)
    tally.equal("unlink", client.unlink("py:b"), 1)
    client.set("py:short", "v", px=20)
    deadline = time.monotonic() + 5
    while client.exists("py:short") and time.monotonic() < deadline:
        pass
    tally.equal("expiry", client.exists("py:short"), 0)


def pipelines(tally, client):
    pipe = client.pipeline(transaction=False)
    for i in range(1000):
        pipe.set(f"py:p:{i}", i)
    tally.equal("pipeline", pipe.execute(), [True] * 1000)
    tally.equal("scan_iter", len(set(client.scan_iter("py:p:*", count=37))), 1000)
    tally.equal("scan_iter by type", len(set(client.scan_iter("py:p:*", _type="list"))), 0)
    pipe.set("py:k2", "text").incr("py:k2").get("py:k2")
    replies = pipe.execute(raise_on_error=False)
    tally.check("an error inside a pipeline", isinstance(replies[1], redis.ResponseError))
    tally.equal("what follows the error", replies[2], b"text")


def errors(tally, client, port):
    for text, command in (
        ("not an integer", ["INCR", "py:k"]),
        ("unknown command", ["NOSUCH"]),
        ("wrong number", ["GET"]),
        ("no such key", ["RENAME", "py:none", "x"]),
    ):
        raises(tally, text, redis.ResponseError, text, lambda: client.execute_command(*command))
    raises(
        tally, "a password nobody set", redis.RedisError, "password",
        lambda: redis.Redis(port=port, password="x").ping(),
    )  # fmt: skip
    raises(
        tally, "a database out of range", redis.ResponseError, "out of range",
        lambda: redis.Redis(port=port, db=99).ping(),
    )  # fmt: skip


def server(tally, client):
    info = client.info()
    tally.check("info", info["redis_version"] and info["tcp_port"] > 0 and "db0" in info)
    tally.check("config get", client.config_get("maxmemory*")["maxmemory"] == "0")
    tally.equal("config set", client.config_set("maxmemory-samples", 6), True)
    found = client.config_get("maxmemory-samples")
    tally.equal("config set is seen", found, {"maxmemory-samples": "6"})
    tally.equal("client_setname", client.client_setname("py"), True)
    tally.equal("client_getname", client.client_getname(), "py")
    tally.check("client_list", any(each["name"] == "py" for each in client.client_list()))
    tally.check("client_id", client.client_id() > 0)
    tally.check("time", abs(client.time()[0] - time.time()) < 60)
    tally.check("dbsize", client.dbsize() > 1000)
    tally.check("memory_usage", client.memory_usage("py:k") > 0)
    tally.check("command_count", client.command_count() > 50)
    tally.equal("command_getkeys", client.command_getkeys("MSET", "a", 1, "b", 2), ["a", "b"])
    tally.check("echo", client.echo("x") == b"x")


def pool(tally, port):
    """Threads share one client: its pool opens a connection for each."""
    client = redis.Redis(port=port, decode_responses=True)
    client.set("py:shared", 0)

    def work():
        for _ in range(200):
            client.incr("py:shared")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.equal("a pool of connections", client.get("py:shared"), "1600")
    client.close()


def main():
    port, unix_path = int(sys.argv[1]), sys.argv[2]
    tally = Tally()
    client = redis.Redis(port=port)
    for part in (strings, keys, pipelines, server):
        part(tally, client)
    errors(tally, client, port)
    pool(tally, port)
    tally.equal("unix socket", redis.Redis(unix_socket_path=unix_path).get("py:k"), b"x")
    tally.equal("url and database", redis.from_url(f"redis://127.0.0.1:{port}/5").get("py:k"), None)
    print("RESTART", flush=True)
    sys.stdin.readline()
    tally.equal("reconnects after a restart", client.get("py:k"), b"x")
    tally.equal("the counter after a restart", client.get("py:shared"), b"1600")
    tally.finish()


if __name__ == "__main__":
    main()
