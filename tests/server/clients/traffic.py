"""The mix of requests of a soak: each kind knows what may come of it.

An outcome is one of: ok, refused (told to come back), left (by us), aborted (by /abort_request),
bad (refused as it must be). Anything else is a failure, with what was wrong.
"""

import asyncio
import json
import random

import aiohttp

from load import ask, session
from server import MODEL_NAME

TEXTS = (
    "The capital of France is",
    "Git is a",
    'What does "courage" mean?',
    "def main(",
    "apt-get install - ",
    "Der Server",
    "日本の",
)
# Long enough to fill blocks of the prefix cache, and few, so that they are found there.
LONG_TEXTS = tuple(text * 30 for text in TEXTS[:3])
GET_PATHS = (
    "/health /metrics /stats /server_info /model_info /v1/models / /health_generate".split()
)

COMPLETIONS, CHAT, GENERATE = "/v1/completions", "/v1/chat/completions", "/generate"

BAD_BODIES = (
    (COMPLETIONS, {"prompt": "a", "temperature": -1}, 400),
    (COMPLETIONS, {"prompt": "a", "n": 100000}, 400),
    (COMPLETIONS, {"prompt": [], "max_tokens": 1}, 400),
    (COMPLETIONS, {"prompt": [[1], "a"]}, 400),
    (COMPLETIONS, {"prompt": [5] * 9000}, 400),
    (COMPLETIONS, {"prompt": "a", "model": "other"}, 404),
    (CHAT, {"messages": "hello"}, 400),
    (CHAT, {"messages": [{"role": "user"}], "logit_bias": {"x": 1}}, 400),
    (GENERATE, {"text": "a", "input_ids": [1]}, 400),
    (GENERATE, {"text": "a", "sampling_params": {"max_new_tokens": 2**70}}, 400),
    ("/v1/tokenize", {}, 400),
    ("/v1/nothing", {}, 404),
)
BAD_BYTES = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
    b"\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 40000,
)


def body_for(path, text, max_tokens, **sampling):
    if path == GENERATE:
        names = {"min_tokens": "min_new_tokens", "seed": "sampling_seed"}
        renamed = {names.get(key, key): value for key, value in sampling.items()}
        return {"text": text, "sampling_params": {"max_new_tokens": max_tokens, **renamed}}
    common = {"model": MODEL_NAME, "max_tokens": max_tokens, **sampling}
    if path == CHAT:
        return {"messages": [{"role": "user", "content": text}], **common}
    return {"prompt": text, **common}


class Traffic:
    """Requests at random, the same for the same seed. `url` is the server's."""

    def __init__(self, url, seed):
        self.url = url
        self.random = random.Random(seed)
        self.references = {}  # (path, text, max_tokens) -> text
        self.num_rids = 0

    async def learn_references(self, client):
        """Asks each greedy request once, alone."""
        for path in (COMPLETIONS, CHAT, GENERATE):
            for text in TEXTS + LONG_TEXTS:
                max_tokens = self.random.choice((8, 24, 60))
                body = body_for(path, text, max_tokens, temperature=0)
                outcome = await ask(client, self.url + path, body)
                if outcome.status != 200 or outcome.error:
                    raise AssertionError(f"{path} {body}: {outcome}")
                self.references[path, text, max_tokens] = outcome.text

    async def one(self, client):
        """(kind, what came of it, what was wrong)."""
        kinds = {
            self.reference: 26,
            self.sampled: 12,
            self.scored: 5,
            self.many: 5,
            self.leaving: 30,
            self.aborted: 4,
            self.slow: 5,
            self.bad: 4,
            self.bad_bytes: 1,
            self.look: 6,
            self.tokens: 2,
            self.flush: 1,
        }
        kind = self.random.choices(list(kinds), kinds.values())[0]
        result, wrong = await kind(client)
        return kind.__name__, result, wrong

    async def reference(self, client):
        (path, text, max_tokens), wanted = self.random.choice(list(self.references.items()))
        stream = self.random.random() < 0.5
        body = body_for(path, text, max_tokens, temperature=0) | {"stream": stream}
        outcome = await ask(client, self.url + path, body)
        if outcome.status == 200 and not outcome.error and outcome.text != wanted:
            return "failed", f"{path} {text!r} said {outcome.text!r} and not {wanted!r}"
        return judge(outcome)

    async def sampled(self, client):
        path, body = self.random_request()
        return judge(await ask(client, self.url + path, body))

    async def scored(self, client):
        ids = [self.random.randrange(8000) for _ in range(self.random.choice((2, 40, 300)))]
        body = {"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
        outcome = await ask(client, self.url + COMPLETIONS, body)
        if outcome.status == 200:
            count = len(json.loads(outcome.body)["choices"][0]["logprobs"]["token_logprobs"])
            if count != len(ids) + 1:
                return "failed", f"{count} log-probabilities of {len(ids)} tokens and one"
        return judge(outcome)

    async def many(self, client):
        texts = self.random.sample(TEXTS, 3)
        body = {"prompt": texts, "n": 2, "max_tokens": self.random.choice((2, 16)), "seed": 1}
        body["stream"] = self.random.random() < 0.5
        return judge(await ask(client, self.url + COMPLETIONS, body))

    async def leaving(self, client):
        path, body = self.random_request(most_tokens=400)
        after = self.random.randrange(1, 30) if body["stream"] else self.random.random() * 0.3
        return judge(await ask(client, self.url + path, body, leave_after=after))

    async def aborted(self, client):
        self.num_rids += 1
        rid = f"soak-{self.num_rids}"
        body = body_for(GENERATE, self.random.choice(TEXTS), 400, ignore_eos=True)
        body |= {"rid": rid, "stream": self.random.random() < 0.5}
        asked = asyncio.create_task(ask(client, self.url + GENERATE, body))
        await asyncio.sleep(self.random.random() * 0.3)
        async with client.post(self.url + "/abort_request", json={"rid": rid}) as response:
            if response.status != 200:
                return "failed", f"/abort_request: {response.status}"
        result, wrong = judge(await asked, "abort")
        return ("aborted" if result == "ok" else result), wrong

    async def slow(self, client):
        path, body = self.random_request(most_tokens=40)
        body["stream"] = True
        return judge(await ask(client, self.url + path, body, pause_s=0.05))

    async def bad(self, client):
        path, body, status = self.random.choice(BAD_BODIES)
        outcome = await ask(client, self.url + path, body)
        if outcome.status != status:
            return "failed", f"{path} {str(body)[:80]}: {outcome.status}, not {status}"
        return ("failed", outcome.error) if outcome.error else ("bad", "")

    async def bad_bytes(self, client):
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(self.random.choice(BAD_BYTES))
            await writer.drain()
            answer = await asyncio.wait_for(reader.read(200), 60)
        except ConnectionResetError:
            return "bad", ""
        finally:
            writer.close()
        is_refused = answer.split(b" ")[1:2] and answer.split(b" ")[1][:1] in b"45"
        return ("bad", "") if is_refused else ("failed", f"bad bytes were answered {answer!r}")

    async def look(self, client):
        path = self.random.choice(GET_PATHS)
        async with client.get(self.url + path) as response:
            await response.read()
            # The probe stands in the queue like any request.
            if response.status == 503 and path == "/health_generate":
                return "refused", ""
            return ("ok", "") if response.status == 200 else ("failed", f"{path} {response.status}")

    async def tokens(self, client):
        text = self.random.choice(TEXTS)
        async with client.post(self.url + "/v1/tokenize", json={"prompt": text}) as response:
            ids = (await response.json())["tokens"]
        async with client.post(self.url + "/v1/detokenize", json={"tokens": ids}) as response:
            back = (await response.json())["prompt"]
        return ("ok", "") if back == text else ("failed", f"{text!r} came back as {back!r}")

    async def flush(self, client):
        async with client.post(self.url + "/flush_cache") as response:
            await response.read()
            return ("ok", "") if response.status == 200 else ("failed", f"{response.status}")

    def random_request(self, most_tokens=200):
        path = self.random.choice((COMPLETIONS, CHAT, GENERATE))
        text = self.random.choice(TEXTS + LONG_TEXTS)
        sampling = {
            "temperature": self.random.choice((0, 0.7, 1.5)),
            "top_p": self.random.choice((0.5, 1)),
            "ignore_eos": self.random.random() < 0.3,
            "stop": self.random.choice((None, [". ", "zzz"])),
            "seed": self.random.randrange(1 << 40),
        }
        body = body_for(path, text, self.random.randint(1, most_tokens), **sampling)
        body |= {"stream": self.random.random() < 0.5, "priority": self.random.choice((0, 0, -1, 5))}
        return path, body


def judge(outcome, *further_reasons):
    """(result, what was wrong) of a request that is fine. `further_reasons`: of finishing."""
    if outcome.error:
        return "failed", outcome.error
    if outcome.was_left:
        return "left", ""
    if outcome.status == 503 and outcome.code() == "server_is_overloaded":
        is_told = int(outcome.headers.get("Retry-After", 0)) >= 1
        return ("refused", "") if is_told else ("failed", "503 without Retry-After")
    if outcome.status != 200:
        return "failed", f"{outcome.status} {outcome.body[:300]}"
    if not outcome.is_done:
        return "failed", "it broke off"
    if outcome.finish_reason not in ("stop", "length", *further_reasons):
        return "failed", f"it finished by {outcome.finish_reason}"
    return "ok", ""


async def client_loop(traffic, is_over, count):
    """One client: request after request. `count(kind, result, wrong)` takes what came of each."""
    async with session() as client:
        while not is_over():
            try:
                kind, result, wrong = await traffic.one(client)
                count(kind, result, wrong)
                # Sooner than was asked for, but not at once: else refusals are all there is.
                if result == "refused":
                    await asyncio.sleep(0.5)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                count("connection", "failed", f"{type(error).__name__}: {error}")
