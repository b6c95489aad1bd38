// From logits to tokens.
#pragma once

#include "outputs.cuh"

struct BestArgs {
    // (rows, V).
    const float* logits;
    // (rows), 0 before.
    unsigned long long* best;
    int vocabulary;
};

constexpr int BEST_WARPS = 8;

// The best token of each row, by `rank_of`.
__device__ void best_tokens(const BestArgs& a) {
    let_next_start();
    wait_for_previous();
    const float* logits = a.logits + (size_t)blockIdx.x * a.vocabulary;
    unsigned long long best = 0;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < a.vocabulary; i += gridDim.y * blockDim.x)
        best = larger(best, rank_of(logits[i], i));
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        best = larger(best, __shfl_xor_sync(0xffffffff, best, distance));
    if (lane() == 0) atomicMax(a.best + blockIdx.x, best);
}

struct TopArgs {
    // (rows, V).
    const float* logits;
    // For each row, the sum of e^(x - largest), an f64, and the `count` best tokens by `rank_of`, best first; all ~0 if
    // a logit is not finite.
    unsigned long long* top;
    int vocabulary;
    int count;
};

constexpr int TOP_THREADS = 1024;
// As in `logits.rs`: numbers summed side by side, and how many before an f64 takes over.
constexpr int SUM_LANES = 16;
constexpr int SUM_BLOCK = 1024;
// The largest vocabulary whose sums fit.
constexpr int TOP_VOCABULARY = 1 << 17;

// e^x for x <= 0, with the same operations as in `logits.rs`: log-probabilities have the same bits wherever they are
// computed.
__device__ __forceinline__ float exp_as_on_the_host(float x) {
    const float round = 12582912.0f;
    const float clamped = x > -87.0f ? x : -87.0f;
    const float rounded = clamped * 1.44269504088896340736f + round;
    const float n = rounded - round;
    const float r = clamped - n * 0.6933594f - n * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    const float power = __uint_as_float((__float_as_uint(rounded) - __float_as_uint(round) + 127u) << 23);
    const float value = (p * r * r + r + 1.0f) * power;
    return x > -87.0f ? value : 0.0f;
}

// What beam search and truncated sampling need from a row of logits, by one thread block.
__device__ void top_tokens(const TopArgs& a) {
    __shared__ float lanes[TOP_VOCABULARY / SUM_BLOCK * SUM_LANES];
    __shared__ double blocks[TOP_VOCABULARY / SUM_BLOCK];
    __shared__ unsigned long long leaders[TOP_THREADS / WARP];
    let_next_start();
    wait_for_previous();
    const float* logits = a.logits + (size_t)blockIdx.x * a.vocabulary;
    unsigned long long* top = a.top + (size_t)blockIdx.x * (a.count + 1);
    // The best over the block's threads.
    const auto best_of_all = [&](unsigned long long own) {
        for (int distance = WARP / 2; distance > 0; distance /= 2)
            own = larger(own, __shfl_xor_sync(0xffffffff, own, distance));
        __syncthreads();
        if (lane() == 0) leaders[warp()] = own;
        __syncthreads();
        own = leaders[lane()];
        for (int distance = WARP / 2; distance > 0; distance /= 2)
            own = larger(own, __shfl_xor_sync(0xffffffff, own, distance));
        return own;
    };
    // The best of the thread's own tokens that rank below `bound`.
    const auto best_below = [&](unsigned long long bound) {
        unsigned long long best = 0;
        for (int i = threadIdx.x; i < a.vocabulary; i += TOP_THREADS) {
            const unsigned long long rank = rank_of(logits[i], i);
            if (rank < bound || bound == ~0ull) best = larger(best, rank);
        }
        return best;
    };
    unsigned long long own = best_below(~0ull);
    unsigned long long best = best_of_all(own);
    if (best == ~0ull) {
        for (int i = threadIdx.x; i <= a.count; i += TOP_THREADS) top[i] = ~0ull;
        return;
    }
    const float largest = logits[~(unsigned)best];
    const int sums = (a.vocabulary + SUM_BLOCK - 1) / SUM_BLOCK;
    for (int i = threadIdx.x; i < sums * SUM_LANES; i += TOP_THREADS) {
        const int from = i / SUM_LANES * SUM_BLOCK, to = min(from + SUM_BLOCK, a.vocabulary);
        float sum = 0.0f;
        for (int j = from + i % SUM_LANES; j < to; j += SUM_LANES) sum += exp_as_on_the_host(logits[j] - largest);
        lanes[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < sums; i += TOP_THREADS) {
        double sum = 0.0;
        for (int j = 0; j < SUM_LANES; j++) sum += (double)lanes[i * SUM_LANES + j];
        blocks[i] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int i = 0; i < sums; i++) sum += blocks[i];
        ((double*)top)[0] = sum;
    }
    for (int i = 1; i <= a.count; i++) {
        if (threadIdx.x == 0) top[i] = best;
        if (own == best) own = best_below(best);
        best = best_of_all(own);
    }
}
