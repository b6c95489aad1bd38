"""How long a corpus takes on machines that differ in speed, lag behind and are taken away.

python simulate_cluster.py      (standard library only; docs/scale.md says where the numbers come from)
"""
import heapq
import random
import statistics

DOCUMENTS = 10**9
TOKENS = 500  # a document
CORES = 64  # a machine
TOKENS_PER_CORE = 1380  # a second, of `score --input` with GPT-2 124M in q8_0; assumed: 64 cores do 32 times what 2 do
START = 30  # seconds from the scheduler's decision to the first row; gpt2 itself takes a tenth of one
SPREAD = 0.1  # standard deviation of the logarithm of a machine's speed
STRAGGLERS, SLOWNESS = 0.02, 4  # this share of the machines runs at a quarter of its speed
STAY = 8 * 3600  # seconds until a machine is taken away, on average; exponentially distributed
REPLACEMENT = 600  # seconds until another one comes
UNDER_WAY = 8 * CORES  # rows that are lost if nothing announces it: a batch of each of as many processes as there are cores

PACE = TOKENS_PER_CORE * CORES / TOKENS  # documents a second and machine


def simulate(machines, tasks, resume, seed):
    """Seconds until all is done, machine-seconds for rows done again, and how often a machine was taken away."""
    draw = random.Random(seed)
    rows = DOCUMENTS / tasks
    waiting, returned = [rows] * tasks, []  # rows left of tasks; the same, after the time from which they wait again
    free = []  # from when, whose turn it is among equals, until when, at how many rows a second

    def arrive(now):
        speed = PACE * draw.lognormvariate(0, SPREAD) / (SLOWNESS if draw.random() < STRAGGLERS else 1)
        heapq.heappush(free, (now, draw.random(), now + draw.expovariate(1 / STAY), speed))

    for _ in range(machines):
        arrive(0)
    end = again = taken = 0
    while waiting or returned:
        now, turn, until, speed = heapq.heappop(free)
        if until <= now:  # It was taken away while it had nothing to do.
            arrive(until + REPLACEMENT)
            continue
        while returned and returned[0][0] <= now:
            waiting.append(heapq.heappop(returned)[1])
        if not waiting:
            heapq.heappush(free, (returned[0][0], turn, until, speed))
            continue
        left = waiting.pop()
        done = now + START + left / speed
        if done <= until:
            end = max(end, done)
            heapq.heappush(free, (done, draw.random(), until, speed))
            continue
        taken += 1
        finished = max(0, until - now - START) * speed
        # With --resume, half of the time not even the rows under way are lost: SIGTERM comes first.
        lost = min(finished, UNDER_WAY * draw.randint(0, 1)) if resume else finished + rows - left
        again += lost / speed
        heapq.heappush(returned, (until, left - finished + lost))
        arrive(until + REPLACEMENT)
    return end, again, taken


print(f"{DOCUMENTS:,} documents of {TOKENS} tokens; a machine does {PACE:.0f} documents a second")
print("machines    tasks  hours a task  --resume   hours  of the ideal  done again  taken away")
for machines, choices in (1, (100, 1_000, 10_000)), (10, (100, 1_000, 10_000)), (1000, (1_000, 10_000, 100_000)):
    ideal = DOCUMENTS / PACE / machines
    for tasks in choices:
        for resume in True, False:
            runs = [simulate(machines, tasks, resume, seed) for seed in range(5)]
            end, again, taken = (statistics.mean(numbers) for numbers in zip(*runs))
            row = f"{machines:8,} {tasks:8,} {ideal * machines / tasks / 3600:13.2f}  {'yes' if resume else 'no':8}"
            print(f"{row} {end / 3600:7.1f} {ideal / end:13.0%} {again / (ideal * machines):11.1%} {taken:11.0f}")
