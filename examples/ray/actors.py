"""Rows through gpt2 with Ray: each actor holds one process, which loads the model once and answers rows as they come.

python actors.py rows.jsonl results.jsonl      (rows.jsonl: {"id": ..., "prompt": ...} a line)
"""
import subprocess
import sys
import threading

import ray

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
        feed = lambda: (self.process.stdin.write("".join(row + "\n" for row in rows)), self.process.stdin.flush())
        threading.Thread(target=feed, daemon=True).start()
        records = [self.process.stdout.readline() for _ in rows]
        if not all(records):
            ray.actor.exit_actor()  # The process died: a new actor does these rows again.
        return records


rows = [line for line in open(sys.argv[1], encoding="utf-8").read().splitlines() if line.strip()]
blocks = [rows[i : i + 250] for i in range(0, len(rows), 250)]
pool = ray.util.ActorPool([Gpt2.remote() for _ in range(int(ray.cluster_resources()["CPU"]))]) if ray.init() else None
with open(sys.argv[2], "w", encoding="utf-8") as results:
    for records in pool.map_unordered(lambda actor, block: actor.run.remote(block), blocks):
        results.writelines(records)
