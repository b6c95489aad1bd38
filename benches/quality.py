"""How much quality each type of weights costs. Usage: quality.py GPT2 MODEL TEXT [POSITIONS]

GPT2 is the built binary, TEXT a file. Prints perplexity, the KL divergence of the next-token distribution from that of the
f32 model (nats, mean over positions), and how often the most probable token is the same. pip install numpy safetensors
"""
import json, subprocess, sys, tempfile
import numpy as np
from safetensors.numpy import load_file

gpt2, model, text = sys.argv[1:4]
most, size = int(sys.argv[4]) if len(sys.argv) > 4 else 4000, 500

def run(*arguments, **more):
    return subprocess.run([gpt2, *arguments], check=True, capture_output=True, text=True, **more).stdout

ids = run("tokenize", "--format", "ids", "--file", text).split()
chunks = [ids[i : i + size] for i in range(0, min(most, len(ids)) - size + 1, size)]

def log_probabilities(chunk, flags):
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        run("trace", "--model", model, "--ids", " ".join(chunk), "--save", file.name, "--quiet", *flags)
        logits = load_file(file.name)["logits"].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

exact = [log_probabilities(chunk, ["--dtype", "f32"]) for chunk in chunks]
for flags in ["--dtype f32", "--dtype f16", "--dtype bf16", "--quantize q8_0", "--quantize q6_k", "--quantize q4_k"]:
    surprise, divergence, same = [], [], []
    for chunk, p in zip(chunks, exact):
        q = log_probabilities(chunk, flags.split())
        surprise.append(-q[np.arange(size - 1), [int(i) for i in chunk[1:]]])
        divergence.append((np.exp(p) * (p - q)).sum(-1))
        same.append(p.argmax(-1) == q.argmax(-1))
    numbers = [np.exp(np.concatenate(surprise).mean()), np.concatenate(divergence).mean(), np.concatenate(same).mean()]
    print("{:<16} perplexity {:.3f}  KL {:.1e}  same top token {:.4f}  ({} positions)".format(flags, *numbers, size * len(chunks)))
