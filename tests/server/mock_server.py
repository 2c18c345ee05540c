"""A server that speaks as augur-server does, and misbehaves on demand.

A test sets `script`, a function that writes the answer to a completion call, and reads `calls`.
Threading: one thread per connection; attributes are set between requests.
"""

import http.server
import json
import random
import re
import threading
import time

MODEL = "mock-moe"
NUM_LAYERS, NUM_EXPERTS, NUM_SLOTS = 12, 32, 160
CAUSES = ("late_prefetch", "cold", "prefill_evicted", "mispredicted", "capacity")
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
         "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def page_policy(source):
    """kPageSecurityPolicy of engine/server/page.h."""
    header = (source / "engine/server/page.h").read_text()
    value = re.search(r"kPageSecurityPolicy =\s*((?:\"[^\"]*\"\s*)+);", header).group(1)
    return "".join(re.findall(r'"([^"]*)"', value))


class MockServer:
    def __init__(self, source):
        self.source = source
        self.policy = page_policy(source)
        self.sample = json.loads((source / "tests/server/stats_sample.json").read_text())
        self.port = 0
        self.key = None           # where set, the API asks for it
        self.fails_with = None    # status of everything but the page's files
        self.has_stats = True
        self.has_experts = True
        self.script = plain_answer("Hello there.")
        self.calls = []           # (path, body) of completion calls
        self.is_gone = threading.Event()  # a client left before its answer was complete
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """As new: on the same port as before, with counters from 0."""
        self.began = time.monotonic()
        self.figures = random.Random(7)
        handler = type("BoundHandler", (Handler,), {"mock": self})
        self.http = Listener(("127.0.0.1", self.port), handler)
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def stats(self):
        uptime_s = time.monotonic() - self.began
        return as_sampled({
            "state": "ready", "model": MODEL, "version": "0.0.1", "uptime_s": uptime_s,
            "loading": None,
            "tokens": {"prompt": int(900 * uptime_s), "generated": int(64 * uptime_s)},
            "requests": {"running": 3, "waiting": 1, "finished": 41, "aborted": 2, "failed": 0,
                         "refused": 5},
            "queue": {"requests": 1, "max_requests": 1024, "tokens": 800, "max_tokens": 1 << 20},
            "kv": {"block_tokens": 16, "total_blocks": 1000, "free_blocks": 400,
                   "cached_blocks": 250, "prefix_query_tokens": 8000, "prefix_hit_tokens": 3000,
                   "preemptions": 0},
            "ttft": {"num_samples": 41, "p50_s": 0.12, "p90_s": 0.3, "p99_s": 1.25},
            "inter_token": {"num_samples": 900, "p50_s": 0.015, "p90_s": 0.02, "p99_s": 0.05},
            "resident_bytes": 3_200_000_000,
            "experts": self.experts() if self.has_experts else None,
        }, self.sample)

    def experts(self):
        layers = [self.expert_layer(1 + layer) for layer in range(NUM_LAYERS)]
        return {
            "num_experts": NUM_EXPERTS, "num_slots": NUM_SLOTS, "num_fetching": 2,
            "slot_bytes": 12_000_000, "counts": sum_counts([layer["counts"] for layer in layers]),
            "demand_bytes": 41_000_000_000, "useful_prefetch_bytes": 9_000_000_000,
            "wasted_prefetch_bytes": 2_000_000_000, "num_failed_fetches": 0, "stall_s": 3.25,
            "layers": layers,
        }

    def expert_layer(self, layer):
        figures = random.Random(layer)  # the same at every call, but for the states
        uses = [int(figures.expovariate(0.02)) if figures.random() > 0.1 else 0
                for _ in range(NUM_EXPERTS)]
        hits = [int(count * figures.uniform(0.4, 1)) for count in uses]
        missed = sum(uses) - sum(hits)
        misses = {cause: missed // len(CAUSES) for cause in CAUSES}
        misses["cold"] += missed % len(CAUSES)
        prefetches = [int(figures.expovariate(0.1)) for _ in range(NUM_EXPERTS)]
        states = "".join(self.figures.choices("0123", (12, 1, 8, 2), k=NUM_EXPERTS))
        return {"layer": layer, "states": states, "uses": uses, "hits": hits,
                "prefetches": prefetches,
                "counts": {"uses": sum(uses), "hits": sum(hits), "misses": misses,
                           "prefetches": sum(prefetches),
                           "useful_prefetches": sum(prefetches) // 2, "wasted_prefetches": 20}}


def as_sampled(value, sample, where="stats"):
    """`value`, after making sure that its members are those that augur-server writes."""
    if isinstance(sample, dict) and value is not None:
        assert value.keys() == sample.keys(), f"{where}: {value.keys() ^ sample.keys()}"
        for name in sample:
            as_sampled(value[name], sample[name], f"{where}.{name}")
    elif isinstance(sample, list):
        for item in value:
            as_sampled(item, sample[0], where + "[]")
    return value


def sum_counts(counts):
    first, *others = counts
    total = json.loads(json.dumps(first))
    for other in others:
        for name, value in other.items():
            if name == "misses":
                for cause, count in value.items():
                    total["misses"][cause] += count
            else:
                total[name] += value
    return total


class Listener(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mock = None  # set in a subclass

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/" or path.startswith("/page/"):
            self.send_page("index.html" if path == "/" else path.removeprefix("/page/"))
        elif self.mock.fails_with is not None:
            self.send_error_body(self.mock.fails_with, "The model is being loaded.")
        elif not self.is_allowed():
            self.send_error_body(401, "A valid API key is needed.")
        elif path == "/stats" and self.mock.has_stats:
            self.send_body(200, "application/json", json.dumps(self.mock.stats()).encode())
        elif path == "/v1/models":
            body = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            self.send_body(200, "application/json", json.dumps(body).encode())
        else:
            self.send_error_body(404, f"There is nothing at {path}.")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_allowed():
            self.send_error_body(401, "A valid API key is needed.")
            return
        self.mock.calls.append((self.path, body))
        try:
            self.mock.script(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.mock.is_gone.set()
            self.close_connection = True

    def is_allowed(self):
        key = self.mock.key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def send_page(self, name):
        path = self.mock.source / "engine/server/page" / name
        if "/" in name or not path.is_file() or path.suffix[1:] not in TYPES:
            self.send_error_body(404, f"There is no file {name}.")
            return
        self.send_body(200, TYPES[path.suffix[1:]], path.read_bytes(),
                       [("Content-Security-Policy", self.mock.policy),
                        ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")])

    def send_body(self, status, content_type, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error_body(self, status, message, headers=()):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self.send_body(status, "application/json", json.dumps({"error": error}).encode(), headers)

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()

    def write(self, data):
        """A chunk of the stream."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self):
        self.wfile.write(b"0\r\n\r\n")


def chunk(body, text=None, finish_reason=None):
    """One event of an answer to `body`, as bytes."""
    if "messages" in body:
        choice = {"index": 0, "delta": {} if text is None else {"content": text}}
    else:
        choice = {"index": 0, "text": text or ""}
    choice["finish_reason"] = finish_reason
    return event({"model": MODEL, "choices": [choice]})


def event(value, line_end=b"\n"):
    # As UTF-8 rather than escaped, so that cuts fall inside characters too.
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + 2 * line_end


def usage_event(num_prompt, num_completion, num_cached):
    usage = {"prompt_tokens": num_prompt, "completion_tokens": num_completion,
             "total_tokens": num_prompt + num_completion,
             "prompt_tokens_details": {"cached_tokens": num_cached}}
    return event({"model": MODEL, "choices": [], "usage": usage})


def plain_answer(*pieces, finish_reason="stop", delay_s=0.0):
    def script(handler, body):
        handler.begin_stream()
        if "messages" in body:
            role = {"index": 0, "delta": {"role": "assistant", "content": ""}}
            handler.write(event({"choices": [role]}))
        for piece in pieces:
            handler.write(chunk(body, piece))
            time.sleep(delay_s)
        handler.write(chunk(body, finish_reason=finish_reason))
        handler.write(usage_event(20, len(pieces), 16))
        handler.write(b"data: [DONE]\n\n")
        handler.end_stream()
    return script


def bytewise_answer(text):
    """Cut after every byte, with line ends of every kind, comments and fields of no use."""
    def script(handler, body):
        handler.begin_stream()
        line_ends = (b"\n", b"\r\n", b"\r")
        stream = b": a comment\n\nevent: message\nid: 7\nretry: 10\n" + chunk(body, "")
        for i, letter in enumerate(text):
            choice = {"index": 0, "delta": {"content": letter}}
            stream += event({"choices": [choice]}, line_ends[i % 3])
        stream += chunk(body, finish_reason="stop") + usage_event(3, len(text), 0)
        stream += b"data:[DONE]\n\n"
        for i in range(len(stream)):
            handler.write(stream[i:i + 1])
        handler.end_stream()
    return script


def failing_answer(text, message):
    """An error after the first text, as an event."""
    def script(handler, body):
        handler.begin_stream()
        handler.write(chunk(body, text))
        handler.write(event({"error": {"message": message, "type": "server_error"}}))
        handler.write(b"data: [DONE]\n\n")
        handler.end_stream()
    return script


def broken_answer(text):
    """The connection goes away in the middle."""
    def script(handler, body):
        handler.begin_stream()
        handler.write(chunk(body, text))
        time.sleep(0.2)  # a browser drops what it has not handed on when a connection breaks
        handler.close_connection = True
    return script


def short_answer(text):
    """A stream that ends in good order, but without an end of the answer."""
    def script(handler, body):
        handler.begin_stream()
        handler.write(chunk(body, text))
        handler.end_stream()
    return script


def endless_answer(handler, body):
    """Goes on until the client leaves; a test that fails must not hang, so it ends some time."""
    handler.begin_stream()
    for i in range(1000):
        handler.write(chunk(body, f"word{i} "))
        time.sleep(0.02)


def refusing_answer(status, message, headers=()):
    def script(handler, body):
        handler.send_error_body(status, message, headers)
    return script


def templateless_answer(handler, body):
    """A model without a chat template: completions only."""
    if "messages" in body:
        handler.send_error_body(400, "This model has no chat template; use /v1/completions.")
    else:
        plain_answer("continued", " text")(handler, body)
