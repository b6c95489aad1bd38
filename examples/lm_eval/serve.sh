#!/bin/sh
# lm-evaluation-harness (0.4.13, `pip install 'lm_eval[api]'`) over `gpt2 serve`; the tokenizer is the server's, too:
#
#   sh serve.sh gpt2 --tasks lambada_openai
#
# takes a model of gpt2's, then every flag of lm_eval.
set -eu
model=$1 server=http://127.0.0.1:${PORT:-8080}
shift
gpt2 serve --model "$model" --port "${PORT:-8080}" &
trap 'kill $!' EXIT
until curl -sf "$server/health" >/dev/null; do
    kill -0 $!
    sleep 0.2
done
context=$(curl -s "$server/v1/models" | sed 's/.*"max_model_len": *\([0-9]*\).*/\1/')
# Two more than the context has positions, and the texts are cut as the harness's `hf` cuts them: it keeps a place for the
# token that it has the server generate, and another for the last token, which is only predicted.
length=$((context + 2))
lm_eval --model local-completions --model_args \
    "model=$model,base_url=$server/v1/completions,tokenizer_backend=remote,max_length=$length,num_concurrent=32" "$@"
