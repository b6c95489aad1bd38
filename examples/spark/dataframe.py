"""A DataFrame through gpt2 with mapInPandas: columns come along, scores are added.

spark-submit dataframe.py rows.jsonl scores.parquet      (rows.jsonl: {"id": ..., "prompt": ...} a line)
"""
import json
import subprocess
import sys

import pandas
from pyspark.sql import SparkSession

GPT2 = ["gpt2", "score", "--model", "demo", "--bos", "--threads", "1", "--input", "-", "--keep-going", "--quiet"]
COLUMNS = "id string, prompt string, ok boolean, error string, sum_logprob double, scored_tokens long"


def score(batches):
    for batch in batches:
        rows = batch[["id", "prompt"]].to_json(orient="records", lines=True)
        done = subprocess.run(GPT2, input=rows, stdout=subprocess.PIPE, text=True, check=True)
        # Results of `score` come in the order of the rows.
        found = pandas.DataFrame([json.loads(line) for line in done.stdout.splitlines()])
        found["prompt"] = batch["prompt"].to_numpy()
        yield found[[column.split()[0] for column in COLUMNS.split(", ")]]


rows, scores = sys.argv[1:3]
spark = SparkSession.builder.appName("gpt2").getOrCreate()
frame = spark.read.schema("id string, prompt string").json(rows).repartition(8)
frame.mapInPandas(score, COLUMNS).write.parquet(scores)
spark.read.parquet(scores).groupBy("ok").count().show()
