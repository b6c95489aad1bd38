// Attention of many queries of a row.
#pragma once

#include "attention.cuh"

// Many queries of a row: a warp goes through all pages for its queries, one head and 64 of the head's numbers. The
// same arithmetic.
template <class T, int R>
__device__ void attention_prompt(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    constexpr int QUERIES = TILE_ROWS * R, PITCH = Scored<T>::PITCH;
    // Tiles of positions of a page, and of numbers of a head.
    constexpr int TILES = PAGE_POSITIONS / TILE_OUTPUTS;
    __shared__ __align__(16) Bits probabilities_of_warps[ATTENTION_WARPS][QUERIES * PITCH];
    Bits* probabilities = probabilities_of_warps[warp()];
    let_next_start();
    const Queries queries = a.queries[blockIdx.x];
    const int head = blockIdx.y, d = blockIdx.z * TILES * TILE_OUTPUTS;
    const int g = lane() / 4, t = lane() % 4;
    const int first = queries.first + warp() * QUERIES, position = queries.position + warp() * QUERIES;
    const int count = min(QUERIES, queries.count - warp() * QUERIES);
    if (count <= 0) return;
    wait_for_previous();
    const int pages = (position + count - 1) / PAGE_POSITIONS + 1;
    const int q_stride = a.q_stride * (int)sizeof(Bits), key_bytes = a.key_dim * (int)sizeof(Bits);
    constexpr int VALUE_BYTES = PAGE_POSITIONS * (int)sizeof(Bits);
    const char* q = a.q + (size_t)first * q_stride + head * key_bytes;
    const float scale = a.scale * LOG2_E;
    float most[R][2], sum[R][2], mixed[TILES][R][4] = {};
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[r][i] = -INFINITY_F32;
            sum[r][i] = 0.0f;
        }
    for (int b = 0; b < pages; b++) {
        const Bits* page = (const Bits*)a.pages[queries.table + b];
        const char* keys = (const char*)(page + a.keys_at + (size_t)head * PAGE_POSITIONS * a.key_dim);
        const char* values = (const char*)(page + a.values_at + (size_t)(head * a.value_dim + d) * PAGE_POSITIONS);
        float s[TILES][R][4];
        {
            Product<T, TILES, R> product;
            for (int at = 0; at < key_bytes; at += STEP_BYTES) {
                uint4 weights[TILES][2];
#pragma unroll
                for (int m = 0; m < TILES; m++)
                    load_rows<T>(weights[m], keys + (m * TILE_OUTPUTS + g) * key_bytes + at + 16 * t, key_bytes);
                product.step(weights, q + at, q_stride);
            }
            product.finish(s);
        }
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[m][r][i] *= scale;
        if (position < (b + 1) * PAGE_POSITIONS - 1) {
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int at = b * PAGE_POSITIONS + m * TILE_OUTPUTS + g + i / 2 * 8;
                        if (at > position + r * TILE_ROWS + 2 * t + i % 2) s[m][r][i] = -INFINITY_F32;
                    }
        }
        // Of the page: the largest score and the sum of each query, in every lane with its column.
        float2 total[R][2];
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int query = r * TILE_ROWS + 2 * t + i;
                float largest = -INFINITY_F32;
#pragma unroll
                for (int m = 0; m < TILES; m++) largest = fmaxf(largest, fmaxf(s[m][r][i], s[m][r][i + 2]));
#pragma unroll
                for (int distance = 4; distance < WARP; distance *= 2)
                    largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, distance));
                float all = 0.0f;
#pragma unroll
                for (int m = 0; m < TILES; m++) {
                    float tile = 0.0f;
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        // As in `score`.
                        const float p = exp2_of(s[m][r][i + 2 * half] - largest);
                        probabilities[query * PITCH + m * TILE_OUTPUTS + g + half * 8] = T::store(p);
                        tile += p;
                    }
#pragma unroll
                    for (int distance = 4; distance < WARP; distance *= 2)
                        tile += __shfl_xor_sync(0xffffffff, tile, distance);
                    all = m == 0 ? tile : all + tile;
                }
                total[r][i] = make_float2(largest, all);
            }
        __syncwarp();
        Product<T, TILES, R> product;
#pragma unroll
        for (int at = 0; at < VALUE_BYTES; at += STEP_BYTES) {
            uint4 weights[TILES][2];
            // Beyond the last number a tile is read again.
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                const int own = min(m * TILE_OUTPUTS, a.value_dim - d - TILE_OUTPUTS) + g;
                load_rows<T>(weights[m], values + own * VALUE_BYTES + at + 16 * t, VALUE_BYTES);
            }
            product.step(weights, (const char*)probabilities + at, PITCH * (int)sizeof(Bits));
        }
        float c[TILES][R][4];
        product.finish(c);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (b * PAGE_POSITIONS > position + r * TILE_ROWS + 2 * t + i) continue;
                const float3 by = factors(most[r][i], total[r][i].x);
                most[r][i] = by.z;
                sum[r][i] = add_scaled(sum[r][i], total[r][i].y, by);
#pragma unroll
                for (int m = 0; m < TILES; m++) {
                    mixed[m][r][i] = add_scaled(mixed[m][r][i], c[m][r][i], by);
                    mixed[m][r][i + 2] = add_scaled(mixed[m][r][i + 2], c[m][r][i + 2], by);
                }
            }
        // No lane may overwrite what others still read.
        __syncwarp();
    }
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int query = r * TILE_ROWS + 2 * t + i % 2, own = d + m * TILE_OUTPUTS + g + i / 2 * 8;
                if (query < count && own < a.head_dim) {
                    const size_t row = (size_t)(first + query) * a.y_stride;
                    ((Bits*)a.y)[row + head * a.head_dim + own] = T::store(mixed[m][r][i] / sum[r][i % 2]);
                }
            }
}
