#!/usr/bin/env python3
"""How much speed is left when there are more threads than cores, on Linux.

    benches/crowded.py GPT2 MODEL [ROUNDS]

GPT2 is the binary, MODEL as for --model. Every round runs `gpt2 bench` once in each setting, so that all of them see the
same drift of the machine; printed are medians of the rounds, and medians of the ratios within a round.
"""

import json
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager

CORES = len(os.sched_getaffinity(0))
ONE = str(min(os.sched_getaffinity(0)))


@contextmanager
def busy(processes):
    """Processes that want a core all the time."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def bench(gpt2, model, threads, others=0, cpu=None):
    """Median tokens per second of a prompt of 128 tokens, and of decoding 128."""
    pinned = ["taskset", "-c", cpu] if cpu else []
    workload = ["--prompt-tokens", "128", "-n", "128", "--repeat", "3", "--threads", str(threads)]
    with busy(others):
        command = [*pinned, gpt2, "bench", "-q", "-m", model, *workload, "--format", "json"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    run = json.loads(output)["runs"][0]
    return run["prefill_tokens_per_s"]["median"], run["decode_tokens_per_s"]["median"]


def main(gpt2, model, rounds=5):
    settings = {
        "one thread": dict(threads=1),
        "all cores": dict(threads=CORES),
        "two threads on one core": dict(threads=2, cpu=ONE),
        "64 threads": dict(threads=64),
        "one thread, one busy process": dict(threads=1, others=1),
        "all cores, one busy process": dict(threads=CORES, others=1),
    }
    found = {name: [] for name in settings}
    for _ in range(int(rounds)):
        for name, setting in settings.items():
            found[name].append(bench(gpt2, model, **setting))
    for name, speeds in found.items():
        prefill, decode = (statistics.median(column) for column in zip(*speeds))
        print(f"{name:30} prefill {prefill:8.1f} tokens/s, decode {decode:8.1f} tokens/s")
    comparisons = [
        ("two threads on one core / one thread", "two threads on one core", "one thread"),
        ("64 threads / all cores", "64 threads", "all cores"),
        ("beside a busy process, all cores / one thread", "all cores, one busy process", "one thread, one busy process"),
    ]
    for title, above, below in comparisons:
        ratios = [[a / b for a, b in zip(x, y)] for x, y in zip(found[above], found[below])]
        prefill, decode = (statistics.median(column) for column in zip(*ratios))
        print(f"{title}: prefill {prefill:.2f}, decode {decode:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
