"""Prefill and decode speed of the peers on one checkpoint folder. Usage: peers.py DIR [pt] [pt-bf16] [ct2] [ct2-int8] [llama-f32] [llama-bf16] [llama-q8_0] [llama-q4_k_m]

Prints one JSON line per engine and prompt length: {"engine", "prompt", "prefill_tok_s", "decode_tok_s"}.
pip install torch transformers ctranslate2 gguf, and llama-cpp-python built with
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
(its AMX path crashes on some machines). Use --no-deps for llama-cpp-python plus diskcache and jinja2 to keep it small.
Run our own bench before and after, on the same checkpoint, and compare medians: the machine's speed drifts.
"""
import json, os, statistics, sys, time
N, PROMPTS, REPEAT, THREADS = 64, (16, 512), 5, os.cpu_count()
ids = lambda n: [(i * 7919) % 50256 for i in range(n)]

def report(engine, prompt, prefill, decode):
    print(json.dumps({"engine": engine, "prompt": prompt, "prefill_tok_s": round(prompt / statistics.median(prefill), 1), "decode_tok_s": round(N / statistics.median(decode), 1)}), flush=True)

def pytorch(d, dtype):
    import torch
    from transformers import GPT2LMHeadModel
    torch.set_num_threads(THREADS)
    m = GPT2LMHeadModel.from_pretrained(d, dtype=getattr(torch, dtype)).eval()
    with torch.inference_mode():
        for p in PROMPTS:
            x = torch.tensor([ids(p)]); m(x); pf, dl = [], []
            for _ in range(REPEAT):
                t = time.perf_counter(); o = m(x, use_cache=True, logits_to_keep=1); pf.append(time.perf_counter() - t)
                past, tok = o.past_key_values, o.logits[:, -1].argmax(-1, keepdim=True)
                t = time.perf_counter()
                for _ in range(N):
                    o = m(tok, past_key_values=past, use_cache=True); past, tok = o.past_key_values, o.logits[:, -1].argmax(-1, keepdim=True)
                dl.append(time.perf_counter() - t)
            report(f"pytorch-{dtype}", p, pf, dl)

def ct2(d, quantization):
    import ctranslate2, transformers
    from ctranslate2.converters import transformers as T
    out = f"{d}/ct2-{quantization or 'f32'}"
    if not os.path.exists(f"{out}/model.bin"):
        class Tok:  # the speed does not depend on the strings
            unk_token = bos_token = eos_token = "<|endoftext|>"; unk_token_id = bos_token_id = eos_token_id = 50256
            added_tokens_encoder, additional_special_tokens = {}, []
            def get_vocab(self): return {**{f"t{i}": i for i in range(50256)}, "<|endoftext|>": 50256}
        spec = T._MODEL_LOADERS["GPT2Config"](transformers.GPT2LMHeadModel.from_pretrained(d), Tok())
        spec.validate(); spec.optimize(quantization=quantization); os.makedirs(out, exist_ok=True); spec.save(out)
    g = ctranslate2.Generator(out, device="cpu", compute_type=quantization or "float32", intra_threads=THREADS)
    kw = dict(sampling_topk=1, include_prompt_in_result=False)
    for p in PROMPTS:
        x = [[f"t{i}" for i in ids(p)]]; g.generate_batch(x, max_length=1, **kw); pf, dl = [], []
        for _ in range(REPEAT):
            t = time.perf_counter(); g.generate_batch(x, max_length=1, **kw); pf.append(time.perf_counter() - t)
            t = time.perf_counter(); g.generate_batch(x, max_length=N + 1, min_length=N + 1, **kw); dl.append(time.perf_counter() - t - pf[-1])
        report(f"ctranslate2-{quantization or 'f32'}", p, pf, dl)

def llama(d, kind):
    import gguf, llama_cpp, numpy as np
    from safetensors.numpy import load_file
    base, path = f"{d}/llama-f32.gguf", f"{d}/llama-{kind}.gguf"
    if not os.path.exists(base):
        c, sd = json.load(open(f"{d}/config.json")), load_file(f"{d}/model.safetensors")
        g = lambda k: sd[k] if k in sd else sd["transformer." + k]
        w = gguf.GGUFWriter(base, "gpt2")
        w.add_block_count(c["n_layer"]); w.add_context_length(c["n_positions"]); w.add_embedding_length(c["n_embd"]); w.add_feed_forward_length(4 * c["n_embd"])
        w.add_head_count(c["n_head"]); w.add_layer_norm_eps(1e-5); w.add_file_type(0); w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("gpt-2")
        w.add_token_list([f"t{i}" for i in range(50256)] + ["<|endoftext|>"]); w.add_token_types([1] * 50256 + [3]); w.add_token_merges(["t1 t2"]); w.add_bos_token_id(50256); w.add_eos_token_id(50256)
        for a, b in (("wte.weight", "token_embd.weight"), ("wpe.weight", "position_embd.weight"), ("ln_f.weight", "output_norm.weight"), ("ln_f.bias", "output_norm.bias"), ("wte.weight", "output.weight")): w.add_tensor(b, g(a))
        for i in range(c["n_layer"]):
            for a, b in {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_1": "attn_norm", "ln_2": "ffn_norm"}.items():
                x = g(f"h.{i}.{a}.weight"); w.add_tensor(f"blk.{i}.{b}.weight", np.ascontiguousarray(x.T) if x.ndim == 2 else x); w.add_tensor(f"blk.{i}.{b}.bias", g(f"h.{i}.{a}.bias"))
        w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    if not os.path.exists(path):
        p = llama_cpp.llama_model_quantize_default_params(); p.ftype = {"f16": 1, "bf16": 32, "q8_0": 7, "q4_k_m": 15}[kind]; p.nthread = THREADS
        assert llama_cpp.llama_model_quantize(base.encode(), path.encode(), p) == 0
    m = llama_cpp.Llama(path, n_ctx=1024, n_batch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)
    for p in PROMPTS:
        m.reset(); m.eval(ids(p)); pf, dl = [], []
        for _ in range(REPEAT):
            m.reset(); t = time.perf_counter(); m.eval(ids(p)); pf.append(time.perf_counter() - t)
            t = time.perf_counter()
            for i in range(N): m.eval([(i * 7 + 1) % 50257])
            dl.append(time.perf_counter() - t)
        report(f"llama.cpp-{kind}", p, pf, dl)

d = sys.argv[1]
for e in sys.argv[2:] or ["pt", "ct2", "ct2-int8", "llama-f32", "llama-bf16", "llama-q8_0", "llama-q4_k_m"]:
    if e.startswith("pt"): pytorch(d, "bfloat16" if e.endswith("bf16") else "float32")
    elif e.startswith("ct2"): ct2(d, "int8" if e.endswith("int8") else None)
    else: llama(d, e.split("-", 1)[1])
