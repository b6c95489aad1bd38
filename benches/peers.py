"""Prefill and decode speed of other engines on the CPU, to compare with `gpt2 bench`.

Usage: peers.py DIR [--engines ENGINE ...] [--prompts N ...] [--new N] [--repeat N] [--threads N]

DIR holds a checkpoint (config.json, model.safetensors), for example from benches/random_gpt2.py. The first run also writes
the formats of other engines there. Engines:

    pytorch-f32, pytorch-bf16                      a greedy loop over transformers' model
    ctranslate2-f32, ctranslate2-int8              generate_batch()
    llama-f32, llama-bf16, llama-f16,              llama.cpp, token by token
    llama-q8_0, llama-q4_k_m

Prints one JSON line per engine and prompt: {"engine", "prompt", "prefill_tok_s", "decode_tok_s"}, medians. Run our own bench
before and after on the same checkpoint: the machine's speed drifts.

Needs torch, transformers, ctranslate2, gguf, safetensors and llama-cpp-python (with --no-deps, diskcache and jinja2 it stays
small), built with CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON
-DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON", as its AMX path crashes on some machines.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

ENGINES = [
    "pytorch-f32",
    "pytorch-bf16",
    "ctranslate2-f32",
    "ctranslate2-int8",
    "llama-f32",
    "llama-bf16",
    "llama-f16",
    "llama-q8_0",
    "llama-q4_k_m",
]
# llama.cpp's numbers for file types.
LLAMA_TYPES = {"f16": 1, "bf16": 32, "q8_0": 7, "q4_k_m": 15}
EOS = "<|endoftext|>"
VOCABULARY = 50257
# GGUF's names for the tensors of a block.
GGUF_NAMES = {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}


def ids(count):
    """The prompt of `gpt2 bench`."""
    return [i * 7919 % VOCABULARY for i in range(count)]


def tokens():
    """A made-up vocabulary: the speed does not depend on the strings."""
    return [f"t{i}" for i in range(VOCABULARY - 1)] + [EOS]


class PyTorch:
    def __init__(self, folder, dtype, args):
        import torch
        from transformers import GPT2LMHeadModel

        self.torch, self.new = torch, args.new
        torch.set_num_threads(args.threads)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()

    def step(self, ids, cache):
        with self.torch.inference_mode():
            out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self.cache, self.token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)

    def prefill(self, prompt):
        self.step(self.torch.tensor([prompt]), None)

    def decode(self):
        for _ in range(self.new):
            self.step(self.token, self.cache)


class CTranslate2:
    def __init__(self, folder, quantization, args):
        import ctranslate2

        quantization = None if quantization == "f32" else quantization
        converted = folder / f"ct2-{quantization or 'f32'}"
        if not (converted / "model.bin").exists():
            self.convert(folder, converted, quantization)
        self.model = ctranslate2.Generator(
            str(converted), device="cpu", compute_type=quantization or "float32", intra_threads=args.threads
        )
        self.new = args.new

    @staticmethod
    def convert(folder, converted, quantization):
        import transformers
        from ctranslate2.converters.transformers import _MODEL_LOADERS

        class Tokenizer:
            unk_token = bos_token = eos_token = EOS
            unk_token_id = bos_token_id = eos_token_id = VOCABULARY - 1
            added_tokens_encoder = {}
            additional_special_tokens = []

            def get_vocab(self):
                return {token: i for i, token in enumerate(tokens())}

        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
        spec = _MODEL_LOADERS["GPT2Config"](model, Tokenizer())
        spec.validate()
        spec.optimize(quantization=quantization)
        converted.mkdir(exist_ok=True)
        spec.save(str(converted))

    def generate(self, new):
        settings = {"sampling_topk": 1, "include_prompt_in_result": False}
        self.model.generate_batch([self.prompt], min_length=new, max_length=new, **settings)

    def prefill(self, prompt):
        names = tokens()
        self.prompt = [names[id] for id in prompt]
        start = time.perf_counter()
        self.generate(1)
        self.took = time.perf_counter() - start
        return self.took

    def decode(self):
        """The engine keeps no state between calls, so this is the time of a full run minus that of the prompt."""
        start = time.perf_counter()
        self.generate(self.new + 1)
        return time.perf_counter() - start - self.took


class Llama:
    def __init__(self, folder, dtype, args):
        import llama_cpp

        base, path = folder / "llama-f32.gguf", folder / f"llama-{dtype}.gguf"
        if not base.exists():
            self.convert(folder, base)
        if not path.exists():
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype, params.nthread = LLAMA_TYPES[dtype], args.threads
            if llama_cpp.llama_model_quantize(str(base).encode(), str(path).encode(), params) != 0:
                raise RuntimeError(f"llama.cpp cannot write {path}")
        self.model = llama_cpp.Llama(
            str(path), n_ctx=1024, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, verbose=False
        )
        self.new = args.new

    @staticmethod
    def convert(folder, path):
        import gguf
        import numpy as np
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_text())
        stored = load_file(folder / "model.safetensors")
        weights = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
        writer = gguf.GGUFWriter(str(path), "gpt2")
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(1e-5)
        writer.add_file_type(0)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens())
        writer.add_token_types([1] * (VOCABULARY - 1) + [3])
        writer.add_token_merges(["t1 t2"])
        writer.add_bos_token_id(VOCABULARY - 1)
        writer.add_eos_token_id(VOCABULARY - 1)
        for ours, theirs in [
            ("wte.weight", "token_embd.weight"),
            ("wpe.weight", "position_embd.weight"),
            ("ln_f.weight", "output_norm.weight"),
            ("ln_f.bias", "output_norm.bias"),
            ("wte.weight", "output.weight"),
        ]:
            writer.add_tensor(theirs, weights[ours])
        for i in range(config["n_layer"]):
            for ours, theirs in GGUF_NAMES.items():
                weight = weights[f"h.{i}.{ours}.weight"]
                writer.add_tensor(f"blk.{i}.{theirs}.weight", np.ascontiguousarray(weight.T))
                writer.add_tensor(f"blk.{i}.{theirs}.bias", weights[f"h.{i}.{ours}.bias"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def prefill(self, prompt):
        self.model.reset()
        self.model.eval(prompt)

    def decode(self):
        for i in range(self.new):
            self.model.eval([(i * 7 + 1) % VOCABULARY])


def seconds(run, *arguments):
    """The seconds that a call took, unless it reports them itself."""
    start = time.perf_counter()
    took = run(*arguments)
    return time.perf_counter() - start if took is None else took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES, metavar="ENGINE")
    parser.add_argument("--prompts", nargs="+", type=int, default=[16, 512], metavar="N", help="tokens of the prompts")
    parser.add_argument("--new", type=int, default=64, help="tokens decoded after each")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    classes = {"pytorch": PyTorch, "ctranslate2": CTranslate2, "llama": Llama}
    for engine in args.engines:
        name, dtype = engine.split("-", 1)
        model = classes[name](args.folder, dtype, args)
        for prompt in args.prompts:
            model.prefill(ids(prompt))
            times = [(seconds(model.prefill, ids(prompt)), seconds(model.decode)) for _ in range(args.repeat)]
            prefill, decode = (statistics.median(column) for column in zip(*times))
            record = {"engine": engine, "prompt": prompt}
            record["prefill_tok_s"] = round(prompt / prefill, 1)
            record["decode_tok_s"] = round(args.new / decode, 1)
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
