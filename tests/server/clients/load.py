"""Requests for loads: many at once, each of which ends as one of a few known outcomes.

Over aiohttp, a connection for each request, so that leaving one is seen by the server at once.
"""

import asyncio
import json
from dataclasses import dataclass, field

import aiohttp

# Against hanging only.
REQUEST_TIMEOUT_S = 200


@dataclass
class Outcome:
    """What came of a request. `text` and `finish_reason` are of its first choice."""

    status: int = 0  # 0: no answer
    text: str = ""
    finish_reason: str | None = None
    is_done: bool = False  # a whole answer, or a stream that ended with [DONE]
    was_left: bool = False  # by us
    error: str = ""  # what is wrong with the answer
    headers: dict = field(default_factory=dict)
    body: str = ""  # of an answer that is no stream

    def code(self):
        return json.loads(self.body)["error"]["code"]


def session():
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )


async def ask(client, url, body, leave_after=None, pause_s=0.0):
    """Posts `body`. `leave_after`: goes away after so many events, or seconds where it is no
    stream. `pause_s`: a reader that waits before each event."""
    outcome = Outcome()
    try:
        if leave_after is not None and not body.get("stream"):
            await asyncio.wait_for(_ask(client, url, body, outcome, None, 0), leave_after)
        else:
            await _ask(client, url, body, outcome, leave_after, pause_s)
    except TimeoutError:
        if leave_after is not None and not body.get("stream"):
            outcome.was_left = True
        else:
            outcome.error = f"no end within {REQUEST_TIMEOUT_S} s"
    except (aiohttp.ClientError, OSError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
    return outcome


async def _ask(client, url, body, outcome, leave_after, pause_s):
    async with client.post(url, json=body) as response:
        outcome.status = response.status
        outcome.headers = dict(response.headers)
        if response.status != 200 or not body.get("stream"):
            outcome.body = await response.text()
            outcome.is_done = True
            if response.status == 200:
                _take(json.loads(outcome.body), outcome)
            return
        num_events = 0
        async for line in response.content:
            line = line.strip()
            if not line:
                continue
            if not line.startswith(b"data: "):
                outcome.error = f"no event: {line[:200]!r}"
                return
            if line == b"data: [DONE]":
                outcome.is_done = True
                continue
            if outcome.is_done:
                outcome.error = "an event after [DONE]"
                return
            _take(json.loads(line[6:]), outcome)
            num_events += 1
            if leave_after is not None and num_events >= leave_after:
                outcome.was_left = True
                return
            if pause_s:
                await asyncio.sleep(pause_s)


def _take(answer, outcome):
    """Adds an event, or takes a whole answer, of any of the three APIs."""
    if "error" in answer:
        outcome.error = json.dumps(answer)
    elif "meta_info" in answer:
        outcome.text = answer["text"]
        finish = answer["meta_info"]["finish_reason"]
        outcome.finish_reason = finish and finish["type"]
    else:
        for choice in answer.get("choices", []):
            if choice.get("index", 0) != 0:
                continue
            part = choice.get("message") or choice.get("delta") or choice
            outcome.text += part.get("text") or part.get("content") or ""
            outcome.finish_reason = choice["finish_reason"] or outcome.finish_reason
