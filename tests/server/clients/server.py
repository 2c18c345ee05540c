"""The server under test, as a process of its own on a port of its own.

    with Server("execution.max_batch_size=4") as server:
        ... server.url, server.stats() ...

The program comes from the environment: AUGUR_SERVER, and AUGUR_SCORE for what its answers are
compared with. Leaving the block ends the server with SIGTERM and fails unless it ends with status
0 and nothing of a sanitizer on its standard error. Only the process started here is signalled.
"""

import functools
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3]
MODEL = SOURCE / "models" / "tiny-glm4-moe"
MODEL_NAME = "tiny-glm4-moe"

# Against hanging only: a build under a sanitizer on a busy machine stays far below.
START_TIMEOUT_S = 120
END_TIMEOUT_S = 120
IDLE_TIMEOUT_S = 60

# name, labels, value of a line of the page that Prometheus reads.
SAMPLE = re.compile(r"^([\w:]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
# Those that are 0 when nothing is under way.
BUSY_GAUGES = (
    "augur_requests",
    "augur_queued_requests",
    "augur_queued_prompt_tokens",
    "augur_completions_running",
    "augur_completions_waiting",
    "augur_kv_used_blocks",
    "augur_open_streams",
)
SANITIZER = re.compile(r"(ERROR|WARNING|SUMMARY): \w*Sanitizer|runtime error:")


def program(variable):
    """The path in an environment variable. Tests fail with what to do where it is not set."""
    path = os.environ.get(variable, "")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{variable} is {path!r}; set it to the program, build/release/tools/...")
    return path


@functools.cache
def is_sanitized():
    """Whether the server was built under a sanitizer: their runtimes' names are in it."""
    content = Path(program("AUGUR_SERVER")).read_bytes()
    return b"__asan_init" in content or b"__tsan_init" in content


def wait_until(condition, what, timeout_s=IDLE_TIMEOUT_S, poll_s=0.02):
    """Returns the first true value of condition(); fails when there is none before the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout_s} s: {what() if callable(what) else what}"
            )
        time.sleep(poll_s)


class Server:
    """Settings are KEY=VALUE, as after --set. `expected_status`: that it must end with."""

    def __init__(self, *settings, expected_status=0):
        self.settings = settings
        self.expected_status = expected_status
        self.process = None
        self.url = None
        self._folder = tempfile.TemporaryDirectory(prefix="augur-server-")
        self._log = Path(self._folder.name) / "stderr"

    def __enter__(self):
        command = [program("AUGUR_SERVER"), "--set", "server.port=0"]
        for setting in self.settings:
            command += ["--set", setting]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        try:
            self.url = self._wait_for_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)
            self._wait_for_line(r"\bready\b")
            wait_until(lambda: self.status_of("/health") == 200, "/health says 200")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self.stop()
            else:
                self.kill()
                print(f"--- standard error of the server\n{self.stderr()[-8000:]}\n---")
        finally:
            self._folder.cleanup()

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process.poll() is None

    def stderr(self):
        return self._log.read_text(errors="replace")

    def terminate(self):
        """Sends SIGTERM and returns at once."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        """Waits for the end and checks how it ended."""
        try:
            status = self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end it:\n{self.stderr()[-8000:]}") from None
        report = SANITIZER.search(self.stderr())
        if status != self.expected_status or report:
            raise AssertionError(f"it ended with status {status}:\n{self.stderr()[-20000:]}")

    def stop(self):
        if self.is_running():
            self.terminate()
        self.wait()

    def kill(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()

    def get(self, path):
        """The body of a GET that must succeed."""
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return response.read().decode()

    def get_json(self, path):
        return json.loads(self.get(path))

    def post(self, path, body):
        """(status, headers, body) of a POST of JSON, whatever the status."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def status_of(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def metrics(self):
        return Metrics(self.get("/metrics"))

    def wait_idle(self):
        """The figures once nothing runs or waits and no KV block is in use."""
        busy = {}

        def look():
            metrics = self.metrics()
            busy.clear()
            busy.update((name, metrics[name]) for name in BUSY_GAUGES if metrics[name])
            return None if busy else metrics

        return wait_until(look, lambda: f"the server is idle; {busy}")

    def _wait_for_line(self, pattern):
        def find():
            if not self.is_running():
                status = self.process.returncode
                raise AssertionError(f"it ended with status {status} at once:\n{self.stderr()}")
            return re.search(pattern, self.stderr())

        def missing():
            return f"standard error has {pattern!r}:\n{self.stderr()[-8000:]}"

        return wait_until(find, missing, START_TIMEOUT_S)


class Metrics:
    """The figures of one moment."""

    def __init__(self, text):
        self.samples = [
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
            for name, labels, value in SAMPLE.findall(text)
        ]

    def __getitem__(self, name):
        return self.of(name)

    def of(self, name, **labels):
        """The sum of the samples of this name and, where given, these labels."""
        values = [v for n, have, v in self.samples if n == name and labels.items() <= have.items()]
        if not values:
            raise AssertionError(f"/metrics has no {name} with {labels}")
        return sum(values)
