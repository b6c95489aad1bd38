// Attention of few queries of a row.
#pragma once

#include "product.cuh"

// New positions of one row that are processed together: at most 8 * R queries.
struct Queries {
    // The first token, and the number of tokens.
    int first, count;
    // The position of the first one in its row.
    int position;
    // Where the row's pages begin in the table.
    int table;
    // Where probabilities go: the first query's in head 0, then the distances to the next query and to the next head.
    int weights_at, weights_stride, weights_head;
    // Positions that the row had before the pass.
    int past;
};

struct AttentionArgs {
    // (N, H, padded D) as T.
    const char* q;
    // Pages of the cache by row.
    const unsigned long long* pages;
    const Queries* queries;
    // (N, C) as T.
    void* y;
    // For each token, head and page: (padded D) mixed values, and their largest score and sum.
    float* partial;
    float2* totals;
    // The number of finished pages of each (tile, head); 0 before and after.
    unsigned* done;
    // Probabilities, or null.
    float* weights;
    float scale;
    int q_stride, y_stride;
    // The most pages that a row can have.
    int most_pages;
    int keys_at, values_at;
    int heads, head_dim;
    int key_dim, value_dim;
};

constexpr int ATTENTION_WARPS = 4;

// What the warps of a block share about one page.
template <class T>
struct Scored {
    static constexpr int QUERIES = TILE_ROWS;
    // The pitch of rows, chosen to avoid bank conflicts.
    static constexpr int PITCH = PAGE_POSITIONS + 16 / (int)sizeof(typename T::Bits);
    // Probabilities before division by their sum, (queries, positions).
    __align__(16) typename T::Bits probabilities[QUERIES * PITCH];
    // The largest score and the sum of each query, by warp.
    float largest[ATTENTION_WARPS][QUERIES];
    float sums[ATTENTION_WARPS][QUERIES];

    // The same over all warps.
    __device__ __forceinline__ float2 total(int query) const {
        float most = largest[0][query], sum = sums[0][query];
#pragma unroll
        for (int w = 1; w < ATTENTION_WARPS; w++) {
            most = fmaxf(most, largest[w][query]);
            sum += sums[w][query];
        }
        return make_float2(most, sum);
    }
};

// A warp's keys: 16 positions of a page.
template <class T>
struct Keys {
    // Heads of up to 64 (f32: 32) numbers are held in registers.
    static constexpr int HELD_STEPS = 2;
    uint4 held[HELD_STEPS][1][2];
    const char* at;
    int bytes;

    __device__ __forceinline__ void ask(const AttentionArgs& a, const typename T::Bits* page, int head) {
        bytes = a.key_dim * (int)sizeof(typename T::Bits);
        const char* keys = (const char*)(page + a.keys_at + (size_t)head * PAGE_POSITIONS * a.key_dim);
        at = keys + (size_t)(warp() * TILE_OUTPUTS + lane() / 4) * bytes + 16 * (lane() % 4);
#pragma unroll
        for (int i = 0; i < HELD_STEPS; i++)
            if (i * STEP_BYTES < bytes) load_rows<T>(held[i][0], at + i * STEP_BYTES, bytes);
    }

    __device__ __forceinline__ void multiply(Product<T, 1, 1>& product, const char* q, int stride) const {
#pragma unroll
        for (int i = 0; i < HELD_STEPS; i++)
            if (i * STEP_BYTES < bytes) product.step(held[i], q + i * STEP_BYTES, stride);
        for (int i = HELD_STEPS; i * STEP_BYTES < bytes; i++) {
            uint4 weights[1][2];
            load_rows<T>(weights[0], at + i * STEP_BYTES, bytes);
            product.step(weights, q + i * STEP_BYTES, stride);
        }
    }
};

// The values of a page's positions, for 16 numbers of a head.
template <class T>
struct Values {
    static constexpr int BYTES = PAGE_POSITIONS * (int)sizeof(typename T::Bits);
    static constexpr int STEPS = BYTES / STEP_BYTES;
    uint4 held[STEPS][1][2];

    __device__ __forceinline__ void ask(const AttentionArgs& a, const typename T::Bits* page, int head, int d) {
        const char* values = (const char*)(page + a.values_at + (size_t)head * a.value_dim * PAGE_POSITIONS);
        const char* at = values + (size_t)(d + lane() / 4) * BYTES + 16 * (lane() % 4);
#pragma unroll
        for (int i = 0; i < STEPS; i++) load_rows<T>(held[i][0], at + i * STEP_BYTES, BYTES);
    }

    __device__ __forceinline__ void mix(float (&c)[1][1][4], const Scored<T>& scored) const {
        Product<T, 1, 1> product;
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            product.step(held[i], (const char*)scored.probabilities + i * STEP_BYTES,
                         Scored<T>::PITCH * (int)sizeof(typename T::Bits));
        product.finish(c);
    }
};

// Scores one page, from `base` on, and leaves the probabilities in shared memory. Scores are logarithms to base 2.
template <class T>
__device__ __forceinline__ void score(const AttentionArgs& a, const Queries& queries, int head, int base,
                                      const Keys<T>& keys, Scored<T>& scored) {
    using Bits = typename T::Bits;
    const int g = lane() / 4, t = lane() % 4;
    const char* q = a.q + ((size_t)queries.first * a.q_stride + head * a.key_dim) * sizeof(Bits);
    Product<T, 1, 1> product;
    keys.multiply(product, q, a.q_stride * (int)sizeof(Bits));
    float s[1][1][4];
    product.finish(s);
    const float scale = a.scale * LOG2_E;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int position = base + warp() * TILE_OUTPUTS + g + i / 2 * 8;
        const int query = 2 * t + i % 2;
        s[0][0][i] = position <= queries.position + query ? s[0][0][i] * scale : -INFINITY_F32;
    }
    // The largest score of each query, over the lanes with its column and over the warps.
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = fmaxf(s[0][0][i], s[0][0][i + 2]);
#pragma unroll
        for (int distance = 4; distance < WARP; distance *= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, distance));
        if (g == 0) scored.largest[warp()][2 * t + i] = most;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int query = 2 * t + i;
        float most = scored.largest[0][query];
#pragma unroll
        for (int w = 1; w < ATTENTION_WARPS; w++) most = fmaxf(most, scored.largest[w][query]);
        float sum = 0.0f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int position = warp() * TILE_OUTPUTS + g + half * 8;
            // NaN stays NaN. A query that none of the page's positions may see gets NaN too, which nobody reads.
            const float p = exp2_of(s[0][0][i + 2 * half] - most);
            scored.probabilities[query * Scored<T>::PITCH + position] = T::store(p);
            if (a.weights && query < queries.count && base + position <= queries.position + query) {
                a.weights[queries.weights_at + (size_t)head * queries.weights_head +
                          (size_t)query * queries.weights_stride + base + position] = p;
            }
            sum += p;
        }
#pragma unroll
        for (int distance = 4; distance < WARP; distance *= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance);
        if (g == 0) scored.sums[warp()][query] = sum;
    }
    __syncthreads();
}

// Factors for mixing pages: x for what was mixed so far, y for the new page; z is the largest score.
__device__ __forceinline__ float3 factors(float before, float now) {
    const float most = fmaxf(before, now);
    return make_float3(exp2_of(before - most), exp2_of(now - most), most);
}

__device__ __forceinline__ float add_scaled(float before, float now, const float3& factors) {
    return fmaf(factors.y, now, factors.x * before);
}

// The most pages whose factors fit in shared memory; more are mixed in groups of this size.
constexpr int MIXED_PAGES = 64;

// Few queries per row: a thread block mixes the values of one page for one head and one tile of queries;
// the last one to finish adds the pages in order. FlashAttention's arithmetic (Dao 2023, arXiv 2307.08691), split
// along positions.
template <class T>
__device__ void attention_split(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    constexpr int QUERIES = TILE_ROWS;
    __shared__ Scored<T> scored;
    __shared__ float3 mixing[QUERIES][MIXED_PAGES];
    __shared__ float2 totals_of_pages[QUERIES][MIXED_PAGES];
    __shared__ float sums[QUERIES];
    __shared__ float most_so_far[QUERIES];
    __shared__ bool is_last;
    let_next_start();
    // The tables were sent before the pass began.
    const Queries queries = a.queries[blockIdx.x];
    const int head = blockIdx.y, base = blockIdx.z * PAGE_POSITIONS;
    const int last_position = queries.position + queries.count - 1;
    if (base > last_position) return;
    const Bits* page = (const Bits*)a.pages[queries.table + blockIdx.z];
    const int g = lane() / 4, t = lane() % 4, d = warp() * TILE_OUTPUTS;
    // What was there before this pass can be requested before the keys and values of the new positions are written.
    const bool settled = base + PAGE_POSITIONS <= queries.past;
    Keys<T> keys;
    Values<T> values;
    const auto ask = [&]() {
        keys.ask(a, page, head);
        if (d < a.value_dim) values.ask(a, page, head, d);
    };
    if (settled) ask();
    wait_for_previous();
    if (!settled) ask();
    score(a, queries, head, base, keys, scored);
    const size_t at = ((size_t)queries.first * a.heads + head) * a.most_pages + blockIdx.z;
    const size_t query_stride = (size_t)a.heads * a.most_pages;
    for (int query = threadIdx.x; query < queries.count; query += WARP * ATTENTION_WARPS)
        a.totals[at + query * query_stride] = scored.total(query);
    for (int i = d; i < a.value_dim; i += ATTENTION_WARPS * TILE_OUTPUTS) {
        if (i != d) values.ask(a, page, head, i);
        float c[1][1][4];
        values.mix(c, scored);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int query = 2 * t + j % 2;
            if (query < queries.count)
                a.partial[(at + query * query_stride) * a.value_dim + i + g + j / 2 * 8] = c[0][0][j];
        }
    }

    __threadfence();
    __syncthreads();
    unsigned* done = a.done + blockIdx.x * a.heads + head;
    if (threadIdx.x == 0) is_last = atomicAdd(done, 1u) == (unsigned)(last_position / PAGE_POSITIONS);
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *done = 0;
    const size_t first = ((size_t)queries.first * a.heads + head) * a.most_pages;
    const int pages = last_position / PAGE_POSITIONS + 1;
    // Each thread adds up to this many numbers of a head at a time.
    constexpr int MIXED = 4;
    const int numbers = queries.count * a.head_dim;
    for (int begin = 0; begin < numbers; begin += MIXED * WARP * ATTENTION_WARPS) {
        float mixed[MIXED] = {};
        for (int from = 0; from < pages; from += MIXED_PAGES) {
            const int to = min(pages, from + MIXED_PAGES);
            __syncthreads();
            for (int i = threadIdx.x; i < queries.count * (to - from); i += WARP * ATTENTION_WARPS) {
                const int query = i / (to - from), b = i % (to - from);
                totals_of_pages[query][b] = read_of_other_blocks(a.totals + first + query * query_stride + from + b);
            }
            __syncthreads();
            if ((int)threadIdx.x < queries.count) {
                const int query = threadIdx.x, own = (queries.position + query) / PAGE_POSITIONS + 1;
                float most = from == 0 ? -INFINITY_F32 : most_so_far[query], sum = from == 0 ? 0.0f : sums[query];
                for (int b = 0; b < min(to, own) - from; b++) {
                    const float2 total = totals_of_pages[query][b];
                    const float3 by = factors(most, total.x);
                    most = by.z;
                    sum = add_scaled(sum, total.y, by);
                    mixing[query][b] = by;
                }
                most_so_far[query] = most;
                sums[query] = sum;
            }
            __syncthreads();
#pragma unroll
            for (int j = 0; j < MIXED; j++) {
                const int i = begin + j * WARP * ATTENTION_WARPS + threadIdx.x;
                if (i >= numbers) continue;
                const int query = i / a.head_dim, d = i % a.head_dim;
                const int own = min(to, (queries.position + query) / PAGE_POSITIONS + 1);
                const float* partial = a.partial + (first + query * query_stride + from) * a.value_dim + d;
#pragma unroll 8
                for (int b = 0; b < own - from; b++)
                    mixed[j] =
                        add_scaled(mixed[j], read_of_other_blocks(partial + (size_t)b * a.value_dim), mixing[query][b]);
            }
        }
#pragma unroll
        for (int j = 0; j < MIXED; j++) {
            const int i = begin + j * WARP * ATTENTION_WARPS + threadIdx.x;
            if (i >= numbers) continue;
            const int query = i / a.head_dim, d = i % a.head_dim;
            const size_t row = (size_t)(queries.first + query) * a.y_stride;
            ((Bits*)a.y)[row + head * a.head_dim + d] = T::store(mixed[j] / sums[query]);
        }
    }
    if (!a.weights) return;
    for (int query = warp(); query < queries.count; query += ATTENTION_WARPS) {
        const int position = queries.position + query;
        float* weights = a.weights + queries.weights_at + (size_t)head * queries.weights_head +
                         (size_t)query * queries.weights_stride;
        for (int i = lane(); i <= position; i += WARP) {
            const float2* total = a.totals + first + query * query_stride + i / PAGE_POSITIONS;
            const float factor = exp2_of(read_of_other_blocks(total).x - most_so_far[query]);
            weights[i] = read_of_other_blocks(weights + i) * factor / sums[query];
        }
    }
}

// Many queries, of one row or of several: a thread block goes through all pages for one tile of queries
// and 64 numbers of a head, requesting each page before it finishes the previous one. The same arithmetic.
template <class T>
__device__ void attention_whole(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    __shared__ Scored<T> scored;
    let_next_start();
    const Queries queries = a.queries[blockIdx.x];
    const int head = blockIdx.y;
    const int g = lane() / 4, t = lane() % 4;
    const int d = (blockIdx.z * ATTENTION_WARPS + warp()) * TILE_OUTPUTS;
    const int pages = (queries.position + queries.count - 1) / PAGE_POSITIONS + 1;
    Keys<T> keys, next_keys;
    Values<T> values, next_values;
    const auto ask = [&](Keys<T>& keys, Values<T>& values, int b) {
        const Bits* page = (const Bits*)a.pages[queries.table + b];
        keys.ask(a, page, head);
        if (d < a.value_dim) values.ask(a, page, head, d);
    };
    const bool settled = PAGE_POSITIONS <= queries.past;
    if (settled) ask(keys, values, 0);
    wait_for_previous();
    if (!settled) ask(keys, values, 0);
    float most[2], sum[2], mixed[4] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = -INFINITY_F32;
        sum[i] = 0.0f;
    }
    for (int b = 0; b < pages; b++) {
        if (b + 1 < pages) ask(next_keys, next_values, b + 1);
        score(a, queries, head, b * PAGE_POSITIONS, keys, scored);
        float c[1][1][4];
        if (d < a.value_dim) values.mix(c, scored);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int query = 2 * t + i;
            if (b * PAGE_POSITIONS > queries.position + query) continue;
            const float2 total = scored.total(query);
            const float3 by = factors(most[i], total.x);
            most[i] = by.z;
            sum[i] = add_scaled(sum[i], total.y, by);
            mixed[i] = add_scaled(mixed[i], c[0][0][i], by);
            mixed[i + 2] = add_scaled(mixed[i + 2], c[0][0][i + 2], by);
        }
        keys = next_keys;
        values = next_values;
        // Nobody may overwrite what others still read.
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int query = 2 * t + i % 2, own = d + g + i / 2 * 8;
        if (query < queries.count && own < a.head_dim) {
            const size_t row = (size_t)(queries.first + query) * a.y_stride;
            ((Bits*)a.y)[row + head * a.head_dim + own] = T::store(mixed[i] / sum[i % 2]);
        }
    }
}
