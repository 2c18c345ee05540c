"""Mixed traffic for a long time, and whether the server stays what it was.

    soak.py --seconds 600 --clients 48 [--server PATH] [--seed N]

Checks: every request ends as one of the outcomes that traffic.py names; the same greedy request
says the same every time; at the end nothing is held and the counts agree; descriptors are as many
as at the beginning, memory has stopped growing (from a minute on, and not under a sanitizer, which
keeps what was freed); the exit status is 0 and no sanitizer has reported anything.
The program is a release build or one under a sanitizer, from --server or AUGUR_SERVER.
"""

import argparse
import asyncio
import collections
import os
import statistics
import sys
import time

from load import session
from server import Server, is_sanitized, wait_until
from traffic import Traffic, client_loop

SETTINGS = (
    "execution.max_batch_size=16",
    "server.limits.max_queued_requests=24",
    # For 1,150 tokens, too few for the batch: cached blocks are given up, and sequences put back
    # for those that are more urgent.
    "kv_cache.bytes=2MiB",
    "schedule.policy=priority",
    "server.shutdown_timeout_s=60",
)
# By how much memory may differ between the middle and the last third of the time.
MEMORY_SHARE = 1.05
MEMORY_SLACK_BYTES = 8 << 20
SECONDS_FOR_MEMORY = 60
MAX_SHOWN_FAILURES = 20


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Soak:
    def __init__(self, server, arguments):
        self.server = server
        self.arguments = arguments
        self.traffic = Traffic(server.url, arguments.seed)
        self.counts = collections.Counter()  # (kind, result)
        self.failures = []
        self.samples = []  # (seconds, resident bytes, descriptors)
        self.end = 0

    def count(self, kind, result, wrong):
        self.counts[kind, result] += 1
        if result == "failed":
            self.failures.append(f"{kind}: {wrong}")

    def num(self, result):
        return sum(count for (_, name), count in self.counts.items() if name == result)

    def is_over(self):
        return time.monotonic() >= self.end or len(self.failures) >= MAX_SHOWN_FAILURES

    async def run(self):
        async with session() as client:
            await self.traffic.learn_references(client)
        begin = time.monotonic()
        self.end = begin + self.arguments.seconds
        clients = [
            asyncio.create_task(client_loop(self.traffic, self.is_over, self.count))
            for _ in range(self.arguments.clients)
        ]
        # One line in twenty-four of the time.
        line_s = max(1.0, self.arguments.seconds / 24)
        last_line = begin
        while not all(client.done() for client in clients):
            await asyncio.sleep(0.5)
            now = time.monotonic()
            pid = self.server.pid
            if not self.server.is_running():
                self.failures.append("the server has ended")
                break
            self.samples.append((now - begin, resident_bytes(pid), num_descriptors(pid)))
            if now - last_line >= line_s:
                last_line = now
                self.print_sample()
        await asyncio.gather(*clients)

    def print_sample(self):
        seconds, num_bytes, descriptors = self.samples[-1]
        print(
            f"{seconds:6.0f} s  {num_bytes / 2**20:8.1f} MiB  {descriptors:5d} descriptors  "
            + "  ".join(f"{name} {self.num(name)}" for name in RESULTS),
            flush=True,
        )

    def check_memory(self):
        """Of the middle third of the time and the last one."""
        seconds = self.arguments.seconds
        middle = [rss for at, rss, _ in self.samples if seconds / 3 <= at < seconds * 2 / 3]
        last = [rss for at, rss, _ in self.samples if seconds * 2 / 3 <= at < seconds]
        if not middle or not last:
            return
        middle, last = statistics.median(middle), statistics.median(last)
        print(f"memory: {middle / 2**20:.1f} MiB, later {last / 2**20:.1f} MiB")
        is_checked = seconds >= SECONDS_FOR_MEMORY and not is_sanitized()
        if is_checked and last > middle * MEMORY_SHARE + MEMORY_SLACK_BYTES:
            self.failures.append("memory grows")

    def check_metrics(self):
        """What the server counted, against what was counted here."""
        metrics = self.server.wait_idle()
        refused = metrics.of("augur_refusals_total", reason="queue_full")
        failed = metrics.of("augur_requests_ended_total", cause="failed")
        # What was left may have been refused, or whole, just before.
        if failed or not self.num("refused") <= refused <= self.num("refused") + self.num("left"):
            self.failures.append(f"{failed} failed, {refused} refused, by /metrics")
        for name in ("preemptions", "prefix_cache_hits", "prefix_cache_evicted_blocks"):
            print(f"{name}: {metrics[f'augur_{name}_total']:.0f}")
        ended = metrics["augur_requests_ended_total"]
        timed = metrics["augur_request_seconds_count"]
        finished = metrics.of("augur_requests_ended_total", cause="finished")
        if timed != finished:
            self.failures.append(f"{finished} finished and {timed} were timed, by /metrics")
        print(f"requests ended: {ended:.0f}, of them finished: {finished:.0f}")

    def report(self):
        for (kind, result), number in sorted(self.counts.items()):
            print(f"{kind:12s} {result:8s} {number}")
        for failure in self.failures[:MAX_SHOWN_FAILURES]:
            print("FAILED", failure)


RESULTS = ("ok", "refused", "left", "aborted", "bad", "failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", help="the program (AUGUR_SERVER)")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.server:
        os.environ["AUGUR_SERVER"] = arguments.server
    with Server(*SETTINGS) as server:
        server.wait_idle()
        descriptors = num_descriptors(server.pid)
        soak = Soak(server, arguments)
        asyncio.run(soak.run())
        if server.is_running():
            soak.check_metrics()
            wait_until(
                lambda: num_descriptors(server.pid) <= descriptors,
                lambda: f"{num_descriptors(server.pid)} descriptors, {descriptors} before",
            )
        soak.check_memory()
        soak.report()
    if soak.num("ok") == 0:
        soak.failures.append("nothing was served")
    print("failed" if soak.failures else "all is well")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
