"""Rows through gpt2 with RDD.pipe: one process a partition, which Spark runs again if it dies.

spark-submit pipe.py rows.jsonl results      (rows.jsonl: {"id": ..., "prompt": ...} a line)
"""
import os
import sys

from pyspark.sql import SparkSession

# --keep-going: rows that fail are records, not a failed task. --seed-by id, with a seed: a task that is run again draws the
# same texts.
GPT2 = (
    "gpt2 generate --model demo --max-new-tokens 8 --temperature 0.8 --seed 1 --seed-by id"
    " --threads 1 --input - --no-timings --keep-going --quiet"
)

rows, results = sys.argv[1:3]
spark = SparkSession.builder.appName("gpt2").getOrCreate()
lines = spark.sparkContext.textFile(rows, minPartitions=8)
# With checkCode, a process that was killed is a failed task and not fewer rows. Without env, it has no PATH.
lines.pipe(GPT2, env=dict(os.environ), checkCode=True).saveAsTextFile(results)

records = spark.read.json(results)
records.groupBy("ok", "error_kind").count().show()
if records.count() != lines.count():
    sys.exit("rows are missing")
