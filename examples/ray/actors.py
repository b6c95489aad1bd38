"""Rows through gpt2 with Ray: each actor holds one process, which loads the model once and answers rows as they come.

python actors.py rows.jsonl results.jsonl      (rows.jsonl: {"id": ..., "prompt": ...} a line)
"""
import os
import subprocess
import sys
import threading

import ray
import ray.util

GPT2 = (
    "gpt2 generate --model demo --max-new-tokens 8 --temperature 0.8 --seed 1 --seed-by id"
    " --threads 1 --input - --no-timings --keep-going --quiet"
).split()


@ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)
class Gpt2:
    def __init__(self):
        self.process = subprocess.Popen(GPT2, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, rows):
        """The records of the rows, in the order in which they finish."""
        threading.Thread(target=self.feed, args=[rows], daemon=True).start()
        records = [self.process.stdout.readline() for _ in rows]
        if not all(record.endswith("\n") for record in records):
            os._exit(1)  # The process died: Ray starts another actor, which does these rows again.
        return records

    def feed(self, rows):
        self.process.stdin.writelines(row + "\n" for row in rows)
        self.process.stdin.flush()


with open(sys.argv[1], encoding="utf-8") as file:
    rows = [line for line in file.read().split("\n") if line.strip()]
blocks = [rows[i : i + 250] for i in range(0, len(rows), 250)]
ray.init()
pool = ray.util.ActorPool([Gpt2.remote() for _ in range(int(ray.cluster_resources()["CPU"]))])
with open(sys.argv[2], "w", encoding="utf-8") as results:
    for records in pool.map_unordered(lambda actor, block: actor.run.remote(block), blocks):
        results.writelines(records)
