#!/usr/bin/env python3
"""`gpt2 bench` and the engines of peers.py in turns, so that all see the same drift of the machine.

    benches/compare.py GPT2 DIR [--rounds N] [--types TYPE ...] [--prompts N ...] [--new N] [--beside N] [--core N]

GPT2 is the binary, DIR as for peers.py, with whose Python this runs. Every round runs, for each type, ours before and after
each of its peers. Printed are medians, and the ratio of ours to each peer: the median over the rounds of what was measured
side by side. --beside starts processes that want a core all the time; --core confines every engine to one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from crowded import busy

TYPES = {
    "f32": ([], ["pytorch-f32", "ctranslate2-f32", "llama-f32"]),
    "bf16": (["--dtype", "bf16"], ["pytorch-bf16", "llama-bf16"]),
    "q8_0": (["--quantize", "q8_0"], ["ctranslate2-int8", "llama-q8_0"]),
    "q4_k": (["--quantize", "q4_k"], ["llama-q4_k_m"]),
}
# Measurements of one run, of which it prints the median.
REPEAT = "3"


def run(args, *command):
    pinned = ["taskset", "-c", str(args.core)] if args.core is not None else []
    return subprocess.run([*pinned, *command], check=True, capture_output=True, text=True).stdout


def ours(args, flags):
    """{prompt: (prefill, decode)}, tokens per second."""
    workload = ["--prompt-tokens", ",".join(args.prompts), "-n", args.new, "--repeat", REPEAT, "--threads", args.threads]
    output = run(args, args.gpt2, "bench", "-q", "-m", args.dir, *workload, "--format", "json", *flags)
    speeds = {}
    for row in json.loads(output)["runs"]:
        prefill, decode = row["prefill_tokens_per_s"], row["decode_tokens_per_s"]
        speeds[row["prompt_tokens"]] = (prefill["median"], decode["median"])
    return speeds


def peer(args, engine):
    """The same for another engine."""
    script = Path(__file__).with_name("peers.py")
    workload = ["--prompts", *args.prompts, "--new", args.new, "--repeat", REPEAT, "--threads", args.threads]
    output = run(args, sys.executable, script, args.dir, "--engines", engine, *workload)
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {row["prompt"]: (row["prefill_tok_s"], row["decode_tok_s"]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gpt2")
    parser.add_argument("dir")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=list(TYPES))
    parser.add_argument("--prompts", nargs="+", default=["16", "512"])
    parser.add_argument("--new", default="32")
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--core", type=int)
    args = parser.parse_args()

    speeds, ratios = defaultdict(list), defaultdict(list)
    with busy(args.beside):
        for _ in range(args.rounds):
            for name in args.types:
                flags, engines = TYPES[name]
                before = ours(args, flags)
                for engine in engines:
                    theirs = peer(args, engine)
                    after = ours(args, flags)
                    for prompt, speed in theirs.items():
                        mean = [(a + b) / 2 for a, b in zip(before[prompt], after[prompt])]
                        speeds["gpt2-" + name, prompt].append(mean)
                        speeds[engine, prompt].append(speed)
                        ratios[engine, prompt].append([a / b for a, b in zip(mean, speed)])
                    before = after
    for (engine, prompt), rows in sorted(speeds.items(), key=lambda entry: entry[0][1]):
        prefill, decode = (statistics.median(column) for column in zip(*rows))
        line = {"engine": engine, "prompt": prompt, "prefill_tok_s": round(prefill, 1), "decode_tok_s": round(decode, 1)}
        if (engine, prompt) in ratios:
            columns = zip(*ratios[engine, prompt])
            line["gpt2_to_it"] = [round(statistics.median(column), 2) for column in columns]
        print(json.dumps(line))


if __name__ == "__main__":
    main()
