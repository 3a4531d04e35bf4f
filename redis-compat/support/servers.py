"""Starts and stops the servers under comparison: free ports, temporary directories, bounded waits."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from .resp import Closed, Connection, Slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRABCACHE = str(ROOT / "build" / "release" / "crabcache-server")
REDIS = shutil.which("redis-server") or "redis-server"
START_S = 20.0
STOP_S = 20.0


def free_port():
    """A port nobody listens on now, outside the range from which outgoing connections are served."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port != 6379:
            return port


def is_redis(binary):
    """Whether a binary is the reference rather than ours; ours also answers to its options."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20).stdout
    return text.startswith("Redis server")


class Server:
    """One server process and its directory. A context manager; restart() keeps the directory.

    Options are given once, in the order of the command line, and are the same for both servers;
    `ours` are added for CrabCache and `theirs` for redis-server. `pin` is the core (or cores) for
    taskset, `wrapper` the command line of a tool that runs the server, `parent` where its directory
    goes.
    """

    def __init__(self, binary, options=(), ours=(), theirs=(), pin=None, wrapper=(), parent=None):
        self.binary = binary
        self.redis = is_redis(binary)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="crab-compat-", dir=parent))
        self.unix_path = str(self.directory / "server.sock")
        self.options = list(options) + list(theirs if self.redis else ours)
        self.pin = pin
        self.wrapper = list(wrapper)
        self.port = 0
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def name(self):
        return "redis-server" if self.redis else "crabcache"

    def command_line(self):
        line = [*self.wrapper, self.binary, "--port", str(self.port)]
        line += ["--unixsocket", self.unix_path, "--dir", str(self.directory), "--save", ""]
        if not self.redis and "--wal-dir" not in self.options:
            line += ["--wal-dir", str(self.directory / "wal")]
        line += self.options
        return ["taskset", "-c", str(self.pin), *line] if self.pin is not None else line

    def spawn(self):
        """Starts the process and does not wait for it."""
        self.port = self.port or free_port()
        with open(self.directory / "output.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command_line(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self, timeout_s=START_S):
        """Starts the process and waits until it answers a PING."""
        for attempt in range(3):
            self.spawn()
            try:
                self.wait_ready(timeout_s)
                return self
            except RuntimeError:
                # Another program may have taken the port between our look and the bind.
                taken = "in use" in self.log()[-2000:].lower()
                self.kill()
                if attempt == 2 or not taken:
                    raise
                self.port = 0
        raise AssertionError("not reached")

    def wait_ready(self, timeout_s=START_S):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.name} ended with {self.process.returncode}:\n{self.log()[-3000:]}"
                )
            try:
                with Connection(self.address, timeout_s=5.0) as connection:
                    answer = connection.raw("PING")
                if answer.startswith((b"+PONG", b"-NOAUTH")):
                    return
            except (OSError, Closed, Slow):
                pass
            time.sleep(0.005)
        raise RuntimeError(f"{self.name} did not answer in {timeout_s} s:\n{self.log()[-3000:]}")

    def stop(self):
        """The graceful end; a server that does not follow SIGTERM is killed. Returns the status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        status, self.process = self.process.returncode, None
        return status

    def kill(self):
        """SIGKILL, and waits until the kernel has taken the process down."""
        if self.process is not None:
            try:
                os.kill(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def connect(self, **options):
        return Connection(self.address, **options)

    def log(self):
        try:
            return (self.directory / "output.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
