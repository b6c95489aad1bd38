#!/bin/bash
#SBATCH --job-name=gpt2
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --requeue
#SBATCH --signal=TERM@30
# Rows through gpt2 as an array of 8 tasks, of which each takes every eighth row:
#
#   sbatch array.sh rows.jsonl results        (rows.jsonl: {"id": ..., "prompt": ...} a line)
#   cat results/*.jsonl > results.jsonl       (once all tasks have their summary)
#
# The same on one machine, without SLURM:
#
#   parallel --joblog log --retries 3 SLURM_ARRAY_TASK_ID={} bash array.sh rows.jsonl results ::: {0..7}
set -u
rows=$1 folder=$2 shard=$SLURM_ARRAY_TASK_ID
mkdir -p "$folder"
# 8 and not SLURM_ARRAY_TASK_COUNT, so that `sbatch --array=3,5` can run some of them again. A task that is preempted, or run
# again, goes on where it stopped.
exec gpt2 generate --model demo --max-new-tokens 8 --temperature 0.8 --seed 1 --seed-by id \
    --threads "${SLURM_CPUS_PER_TASK:-1}" --input "$rows" --shard "$shard/8" --no-timings --keep-going \
    --output "$folder/$shard.jsonl" --resume --summary "$folder/$shard.summary.json" --progress 60s
