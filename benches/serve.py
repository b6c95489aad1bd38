#!/usr/bin/env python3
"""How fast `gpt2 serve` answers many clients, on Linux.

    benches/serve.py GPT2 MODEL [ROUNDS]        throughput of 32 clients, and the time to the first token
    benches/serve.py GPT2 MODEL load [SECONDS]  mixed requests of 64 clients, of which some go away

GPT2 is the binary, MODEL as for --model. In the first form every round runs `gpt2 generate --input` and the server on the
same requests, so that both see the same drift of the machine; printed are medians of the rounds, and medians of the ratios
within a round. In the second, every answer is compared with that of the command line.
"""

import http.client
import json
import math
import os
import pathlib
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager

TEXT = (pathlib.Path(__file__).parent.parent / "tests/fixtures/perplexity/text.txt").read_text()
SENTENCES = [sentence for sentence in re.split(r"(?<=[.!?])\s+", TEXT) if 20 < len(sentence) < 200]


@contextmanager
def server(gpt2, model, *flags):
    """The process of a server, and its port."""
    command = [gpt2, "serve", "--model", model, "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in process.stderr if (found := re.search(r"at http://.*:(\d+)", line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, port
    finally:
        process.terminate()
        if process.wait() != 0:
            sys.exit(f"the server ended with {process.returncode}")


def rows(gpt2, model, subcommand, inputs, *flags):
    """What the command line makes of rows, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "in.jsonl").write_text("".join(json.dumps({"id": i, **row}) + "\n" for i, row in enumerate(inputs)))
        command = [gpt2, subcommand, "-q", "--model", model, "--input", path / "in.jsonl", "--summary", path / "summary.json", *flags]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results = sorted(map(json.loads, output.splitlines()), key=lambda result: result["id"])
        return results, json.loads((path / "summary.json").read_text())["seconds"]


def post(body):
    body = json.dumps(body).encode()
    return b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def answers(port, requests, clients):
    """The bytes that answer each request, on so many connections, and the seconds that all took. Takes as little of the
    processor as it can, for the server needs it."""
    selector, waiting, found = selectors.DefaultSelector(), list(enumerate(requests))[::-1], {}

    def ask(connection):
        number, request = waiting.pop()
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, (number, bytearray()))

    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    start = time.perf_counter()
    for connection in connections:
        ask(connection)
    while selector.get_map():
        for key, _ in selector.select():
            number, answer = key.data
            answer += key.fileobj.recv(1 << 20)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if len(body) == int(length[1]) if length else answer.endswith(b"\r\n0\r\n\r\n"):
                found[number] = bytes(answer)
                selector.unregister(key.fileobj)
                if waiting:
                    ask(key.fileobj)
    seconds = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return [found[number] for number in sorted(found)], seconds


def first_token(port, prompt):
    """Seconds to the first token of a stream."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start, answer = time.perf_counter(), b""
        connection.sendall(post({"prompt": prompt, "max_tokens": 2, "temperature": 0, "stream": True}))
        while b"\ndata: " not in answer:
            answer += connection.recv(1 << 16)
        seconds = time.perf_counter() - start
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(1 << 16)
        return seconds


def speed(gpt2, model, rounds=5):
    new = 64
    prompts = [random.choice(SENTENCES) for _ in range(224)]
    inputs = [{"prompt": prompt, "max_new_tokens": new} for prompt in prompts]
    asked = [{"prompt": prompt, "max_tokens": new, "temperature": 0} for prompt in prompts]
    speeds, first = defaultdict(list), defaultdict(list)
    with server(gpt2, model) as (_, port):
        for _ in range(int(rounds)):
            results, seconds = rows(gpt2, model, "generate", inputs, "--batch-size", "32")
            tokens = sum(len(result["sequences"][0]["ids"]) for result in results)
            speeds["generate --input"].append(tokens / seconds)
            for name, more in [("32 clients", {}), ("32 clients, streaming", {"stream": True})]:
                found, seconds = answers(port, [post({**body, **more}) for body in asked], 32)
                texts = [result["sequences"][0]["text"] for result in results]
                assert texts == list(map(text, found)), "the server's texts are others"
                speeds[name].append(tokens / seconds)
        prompt = TEXT[:1200]
        for _ in range(5 * int(rounds)):
            command = [gpt2, "generate", "-q", "--model", model, "--prompt", prompt, "-n", "17", "--format", "json"]
            timings = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["timings"]
            prefill, step = timings["prefill_s"], timings["decode_s"] / 16
            seconds = first_token(port, prompt)
            first["prefill"].append(prefill)
            first["step"].append(step)
            first["first token"].append(seconds)
            first["steps more than the prefill"].append((seconds - prefill) / step)
    base = speeds["generate --input"]
    for name, values in speeds.items():
        ratio = statistics.median(value / one for value, one in zip(values, base))
        print(f"{name:24} {statistics.median(values):8.1f} tokens/s, {ratio:.3f} of `generate --input --batch-size 32`")
    tokens = timings["prompt_tokens"]
    print(f"idle server, a prompt of {tokens} tokens: first token after {1e3 * statistics.median(first['first token']):.1f} ms;"
          f" prefill {1e3 * statistics.median(first['prefill']):.1f} ms, a step {1e3 * statistics.median(first['step']):.1f} ms:"
          f" {statistics.median(first['steps more than the prefill']):.2f} steps more than the prefill")


def text(answer):
    """The text of a whole answer, streamed or not."""
    body = answer.partition(b"\r\n\r\n")[2]
    if body.startswith(b"{"):
        return json.loads(body)["choices"][0]["text"]
    parts = [json.loads(line) for line in re.findall(rb"data: (\{.*)\n", body)]
    return "".join(part["choices"][0]["text"] for part in parts)


# What clients ask, as a request and as rows of the command line, and what they should get.


def cases(gpt2, model, count):
    """Requests of every kind with the expected choices: text, reason, log-probabilities."""
    draw = random.Random(7)
    wanted = []
    for number in range(count):
        kind = ["short", "long", "n", "best_of", "echo", "beams", "ids", "prompts", "stop"][number % 9]
        prompt, seed, new = draw.choice(SENTENCES)[: draw.randrange(20, 120)].rstrip(), number, draw.randrange(1, 17)
        row = {"prompt": prompt, "max_new_tokens": new, "sample": True, "seed": seed}
        body = {"prompt": prompt, "max_tokens": new, "seed": seed}
        if kind == "long":
            change = {"temperature": 0.7, "top_p": 0.9}
            row, body = {**row, **change, "max_new_tokens": 200}, {**body, **change, "max_tokens": 200}
        elif kind in ["n", "best_of"]:
            row |= {"num_return_sequences": 3, "logprobs": 0}
            body |= {kind: 3}
        elif kind == "echo":
            row |= {"logprobs": 2, "sample": False}
            body |= {"logprobs": 2, "temperature": 0, "echo": True}
            del row["seed"]
        elif kind == "beams":
            row |= {"num_beams": 4, "sample": False}
            body |= {"num_beams": 4}
            del row["seed"]
        elif kind == "ids":
            ids = [draw.randrange(50000) for _ in range(new)]
            row["prompt_ids"] = body["prompt"] = ids
            del row["prompt"]
        elif kind == "stop":
            row |= {"stop": ["e", "\n"], "repetition_penalty": 1.3}
            body |= {"stop": ["e", "\n"], "repetition_penalty": 1.3}
        elif kind == "prompts":
            body["prompt"] = [prompt, prompt, "The king"]
            wanted.append((kind, body, [row, {**row, "seed": seed + 1}, {**row, "prompt": "The king", "seed": seed + 2}]))
            continue
        wanted.append((kind, body, [row]))
    inputs = [row for _, _, all_rows in wanted for row in all_rows]
    results = iter(rows(gpt2, model, "generate", inputs)[0])
    echoed = [row["prompt"] for kind, _, (row, *_) in wanted if kind == "echo"]
    scores = iter(rows(gpt2, model, "score", [{"text": prompt} for prompt in echoed])[0])
    return [(kind, body, expected(kind, [next(results) for _ in all_rows], scores)) for kind, body, all_rows in wanted]


def expected(kind, results, scores):
    reasons = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}
    sequences = [sequence for result in results for sequence in result["sequences"]]
    if kind == "best_of":
        mean = lambda sequence: math.fsum(token["logprob"] for token in sequence["logprobs"]) / len(sequence["logprobs"])
        sequences = [max(sequences, key=mean)]
    choices = [{"text": sequence["text"], "finish_reason": reasons[sequence["finish_reason"]]} for sequence in sequences]
    if kind == "echo":
        score = next(scores)
        choices[0]["text"] = score["text"] + choices[0]["text"] if "text" in score else results[0]["prompt"] + choices[0]["text"]
        choices[0]["logprobs"] = score["logprobs"] + [token["logprob"] for token in sequences[0]["logprobs"]]
    return choices


WRONG = [({"prompt": "a", "temperature": -1}, 400), ({"prompt": "a", "model": "other"}, 404), ({"prompt": [1] * 5000}, 400),
         ({"prompt": [60000]}, 400), ({"prompt": {"a": 1}}, 400), ({}, 400), ({"prompt": "a", "n": 1000}, 400)]


def client(port, known, until, report, seed):
    """Asks until the time is over; `report` gets what happened."""
    draw = random.Random(seed)
    connection = None
    while time.perf_counter() < until:
        time.sleep(draw.random() * 0.1)
        connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        what = draw.random()
        kind, body, choices = draw.choice(known)
        wrong, status = draw.choice(WRONG)
        stream = kind != "best_of" and draw.random() < 0.4
        asked = wrong if what < 0.05 else {**body, "stream": stream}
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(asked))
        if what > 0.9:
            # In the midst of the prompt, or of the answer.
            time.sleep(draw.random() * 0.3)
            if draw.random() < 0.3 and stream:
                connection.getresponse().read(200)
            connection.close()
            connection = None
            report("went away", None, None, True)
            continue
        response = connection.getresponse()
        if what < 0.05:
            report("errors", None, None, response.status == status and "message" in json.loads(response.read())["error"])
            continue
        if response.status != 200:
            report(kind, None, None, False, response.read())
            continue
        first, found = None, {}
        if stream:
            while line := response.readline():
                first = first or time.perf_counter() - start
                if line.startswith(b"data: {"):
                    add(found, json.loads(line[6:]))
        else:
            add(found, json.loads(response.read()))
        whole = time.perf_counter() - start
        found = [found.get(index) for index in range(len(choices))]
        report(kind + (", streaming" if stream else ""), first, whole, found == choices, asked, found, choices)


def add(found, part):
    for choice in part["choices"]:
        one = found.setdefault(choice["index"], {"text": "", "finish_reason": None})
        one["text"] += choice["text"]
        one["finish_reason"] = choice["finish_reason"] or one["finish_reason"]
        if choice["logprobs"]:
            one.setdefault("logprobs", []).extend(choice["logprobs"]["token_logprobs"])


def memory(process):
    """Resident and proportional MB."""
    numbers = dict(re.findall(r"(\w+): +(\d+) kB", pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()))
    return int(numbers["Rss"]) / 1000, int(numbers["Pss"]) / 1000


def load(gpt2, model, seconds=600):
    known = cases(gpt2, model, 324)
    events, wrong = [], []

    def report(kind, first, whole, right, *details):
        events.append((kind, first, whole))
        if not right:
            wrong.append((kind, *details))

    with server(gpt2, model) as (process, port):
        start = time.perf_counter()
        until = start + float(seconds)
        clients = [threading.Thread(target=client, args=(port, known, until, report, seed)) for seed in range(64)]
        for one in clients:
            one.start()
        every = max(float(seconds) / 20, 1)
        while (now := time.perf_counter()) < until:
            rss, pss = memory(process)
            print(f"{now - start:6.0f} s: RSS {rss:6.1f} MB, PSS {pss:6.1f} MB, {len(events)} requests, {len(wrong)} wrong", flush=True)
            time.sleep(min(every, until - now) + 0.01)
        for one in clients:
            one.join()
        rss, pss = memory(process)
        print(f"at the end: RSS {rss:6.1f} MB, PSS {pss:6.1f} MB")
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/metrics")
            running = re.search(r"^gpt2_prompts_running (\d+)", connection.getresponse().read().decode(), re.M)[1]
            if running == "0":
                break
            time.sleep(0.1)
        print(f"prompts that still run: {running}")
    print(f"{len(events)} requests, {len(wrong)} wrong answers")
    for kind, count in sorted(Counter(kind for kind, *_ in events).items()):
        times = [(first, whole) for other, first, whole in events if other == kind]
        line = f"{kind:20} {count:6}"
        for name, values in [("whole", [whole for _, whole in times]), ("first token", [first for first, _ in times])]:
            values = sorted(value for value in values if value is not None)
            if values:
                at = [values[min(int(len(values) * share), len(values) - 1)] for share in [0.5, 0.9, 0.99]]
                line += f"   {name} " + ", ".join(f"p{p} {value:.3f} s" for p, value in zip([50, 90, 99], at))
        print(line)
    for one in wrong[:3]:
        print("WRONG", one)
    sys.exit(bool(wrong) or running != "0")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    load(*sys.argv[1:3], *sys.argv[4:]) if sys.argv[3:4] == ["load"] else speed(*sys.argv[1:])
