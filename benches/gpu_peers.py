"""Prefill and decode speed of PyTorch with transformers on a GPU, to compare with `gpt2 bench --device cuda`.

Usage: gpu_peers.py [--rows MODEL:DTYPE:BATCH:ENGINE[,ENGINE...] ...] [--prompt N] [--new N] [--repeat N]
       gpu_peers.py --device cpu --tiny        tries the script on a small network, without a GPU

Models have the sizes of gpt2 and gpt2-xl and random weights, so that nothing is downloaded. Engines:

    eager   a greedy loop over the model and a DynamicCache, without the overhead of generate()
    graphs  a StaticCache and one compiled step (forward, argmax, next token in place) as a CUDA graph; the prompt is run
            uncompiled, as in transformers
    beams   generate() with 4 beams; its decode_tok_s are steps

Prints one JSON line per row and engine: {"engine", "model", "dtype", "batch", "prompt", "prefill_tok_s",
"decode_tok_s"}, the speeds counting the tokens of all rows, and "took_s", warm-up and compilation included;
{"engine", ..., "error"} if an engine fails. Speeds are medians. Needs torch, transformers and, to compile, a C++ compiler.
"""

import argparse
import json
import os
import statistics
import time
import traceback

# Fetch nothing, and do not wait for a network that is not there.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, StaticCache

SIZES = {
    "gpt2": {},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    "tiny": {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000},
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# The most important rows come first, in case time is short.
ROWS = [
    "gpt2:bf16:1:eager,graphs",
    "gpt2:bf16:32:eager,graphs",
    "gpt2:f32:1:eager,graphs",
    "gpt2:f32:32:eager,graphs",
    "gpt2:bf16:1:beams",
    "gpt2:f16:1:eager",
    "gpt2:f16:32:eager",
    "gpt2-xl:bf16:1:eager,graphs",
    "gpt2-xl:bf16:8:eager",
]
BEAMS = 4


class Bench:
    """One model and the length of its run."""

    def __init__(self, size, dtype, args):
        torch.manual_seed(0)
        config = GPT2Config(**SIZES["tiny" if args.tiny else size], bos_token_id=None, eos_token_id=None)
        with torch.device(args.device):
            model = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa", dtype=DTYPES[dtype])
        self.model = model.to(DTYPES[dtype]).eval()
        self.device, self.prompt, self.new, self.repeat = args.device, args.prompt, args.new, args.repeat

    def ids(self, batch):
        """The prompt of `gpt2 bench`, in every row."""
        vocabulary = self.model.config.vocab_size
        ids = torch.tensor([i * 7919 % vocabulary for i in range(self.prompt)], device=self.device)
        return ids.repeat(batch, 1)

    def now(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def medians(self, prefill, decode, warm_up):
        """Seconds of the two phases, after `warm_up` runs that do not count."""
        times = []
        for _ in range(warm_up + self.repeat):
            start = self.now()
            prefill()
            middle = self.now()
            decode()
            times.append((middle - start, self.now() - middle))
        return [statistics.median(column) for column in zip(*times[warm_up:])]

    def eager(self, batch):
        ids, out, token = self.ids(batch), None, None

        def step(ids, cache):
            nonlocal out, token
            out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)

        def decode():
            for _ in range(self.new):
                step(token, out.past_key_values)

        return self.medians(lambda: step(ids, None), decode, warm_up=1)

    def graphs(self, batch):
        ids = self.ids(batch)
        cache = StaticCache(config=self.model.config, max_cache_len=self.prompt + self.new)
        token = torch.zeros((batch, 1), dtype=torch.long, device=self.device)
        # The graph reads and writes it in place, so nothing is copied between steps. The cache marks its tensors the same
        # way.
        torch._dynamo.mark_static_address(token)

        def step(ids, cache):
            logits = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            token.copy_(logits[:, -1].argmax(-1, keepdim=True))

        def prefill():
            cache.reset()
            step(ids, cache)

        def decode(compiled):
            for _ in range(self.new):
                compiled(token, cache)

        def measure(fullgraph):
            torch._dynamo.reset()
            compiled = torch.compile(step, mode="reduce-overhead", fullgraph=fullgraph, dynamic=False)
            # The first run compiles, captures the graph and replays it.
            return self.medians(prefill, lambda: decode(compiled), warm_up=1)

        try:
            return measure(fullgraph=True)
        except torch._dynamo.exc.TorchDynamoException as error:
            print(json.dumps({"note": "not one graph", "error": first_line(error)}), flush=True)
            return measure(fullgraph=False)

    def beams(self, batch):
        ids = self.ids(batch)
        mask = torch.ones_like(ids)

        def generate(new):
            settings = {"num_beams": BEAMS, "do_sample": False, "use_cache": True, "pad_token_id": 0}
            self.model.generate(ids, attention_mask=mask, min_new_tokens=new, max_new_tokens=new, **settings)

        prefill, whole = self.medians(lambda: generate(1), lambda: generate(self.new + 1), warm_up=1)
        return prefill, whole - prefill


def first_line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="MODEL:DTYPE:BATCH:ENGINE,...")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens decoded after it")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a small network in place of every model")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    transformers.logging.set_verbosity_error()
    failed, loaded, bench = False, None, None
    for row in args.rows:
        size, dtype, batch, engines = row.split(":")
        for engine in engines.split(","):
            record = {"engine": engine, "model": size, "dtype": dtype, "batch": int(batch), "prompt": args.prompt}
            start = time.perf_counter()
            try:
                if loaded != (size, dtype):
                    bench = None
                    loaded, bench = (size, dtype), Bench(size, dtype, args)
                with torch.no_grad():
                    prefill, decode = getattr(bench, engine)(int(batch))
                sequences = 1 if engine == "beams" else int(batch)
                record["prefill_tok_s"] = round(int(batch) * args.prompt / prefill, 1)
                record["decode_tok_s"] = round(sequences * args.new / decode, 1)
            except Exception as error:
                failed = True
                traceback.print_exc()
                record["error"] = first_line(error)
            record["took_s"] = round(time.perf_counter() - start, 1)
            print(json.dumps(record), flush=True)
            torch._dynamo.reset()
            if args.device == "cuda":
                torch.cuda.empty_cache()
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
