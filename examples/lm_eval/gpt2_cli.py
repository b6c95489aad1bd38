"""lm-evaluation-harness (0.4.13) over the command line of gpt2.

    python gpt2_cli.py --model gpt2-cli --model_args pretrained=gpt2 --tasks lambada_openai

takes every flag of lm_eval. Other model arguments: binary=PATH, batch_size=N, and flags=..., such as flags="--dtype bf16".
"""
import json
import shlex
import subprocess

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model


@register_model("gpt2-cli")
class Gpt2(TemplateLM):
    def __init__(self, pretrained="gpt2", binary="gpt2", batch_size=32, flags="", **_):
        super().__init__()
        self.binary, self.model = str(binary), ["--model", pretrained, *shlex.split(flags)]
        self.batch_size = str(batch_size) if str(batch_size).isdigit() else "32"
        info = subprocess.run([self.binary, "info", "--model", pretrained, "--format", "json"], check=True, stdout=subprocess.PIPE)
        config = json.loads(info.stdout)["config"]
        self.length = config["n_positions"]
        # One process for all texts: it answers each row as it comes.
        self.tokenizer = subprocess.Popen(
            [self.binary, "tokenize", "--model", pretrained, "--input", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.eot = config["bos_token_id"]

    @property
    def eot_token_id(self):
        return self.eot

    def tok_encode(self, string, **_):
        if not string:
            return []
        print(json.dumps({"text": string}), file=self.tokenizer.stdin, flush=True)
        return [token["id"] for token in json.loads(self.tokenizer.stdout.readline())["tokens"]]

    def run(self, subcommand, rows, *flags):
        """The results of rows, in their order."""
        rows = "".join(json.dumps({"id": i, **row}) + "\n" for i, row in enumerate(rows))
        command = [self.binary, subcommand, *self.model, "--input", "-", "--batch-size", self.batch_size, *flags]
        done = subprocess.run(command, input=rows, stdout=subprocess.PIPE, text=True, check=True)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        return sorted(results, key=lambda result: result["id"])

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **_):
        def row(context, text):  # The end of what is too long; the last token is only scored.
            before = max(self.length + 1 - len(text), 1)
            return {"context_ids": context[-before:], "ids": text}
        results = self.run("score", [row(context, text) for _, context, text in requests])
        return [(result["sum_logprob"], result["is_greedy"]) for result in results]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [result["sum_logprob"] for result in self.run("score", [{"text": r.args[0]} for r in requests], "--rolling")]

    def generate_until(self, requests, disable_tqdm=False):
        def row(prompt, wanted):
            new = int(wanted.get("max_gen_toks", 256))
            stop = wanted.get("until") or []
            ids = (self.tok_encode(prompt) or [self.eot])[-(self.length - new):]
            return {"prompt_ids": ids, "max_new_tokens": new, "stop": [stop] if isinstance(stop, str) else stop}
        results = self.run("generate", [row(*r.args) for r in requests])
        return [result["sequences"][0]["text"] for result in results]


if __name__ == "__main__":
    cli_evaluate()
