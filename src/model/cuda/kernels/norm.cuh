// Layer norm.
#pragma once

#include "numbers.cuh"

struct Norm {
    const float* weight;
    const float* bias;
    float epsilon;
    int width;
};

// Numbers of a row that a warp processes at a time, four per lane.
constexpr int VECTORS_WIDTH = 4 * WARP;
// How many of these steps it holds in registers; it reads the rest again.
constexpr int HELD = 8;

__device__ __forceinline__ float4 vector_at(const float* row, int c) { return *(const float4*)(row + c); }

// Stores four adjacent numbers as T.
template <class T>
__device__ __forceinline__ void put_vector(typename T::Bits* at, const float (&x)[4]) {
    struct __align__(4 * sizeof(typename T::Bits)) Four {
        typename T::Bits x[4];
    } four;
    for (int j = 0; j < 4; j++) four.x[j] = T::store(x[j]);
    *(Four*)at = four;
}

// One row, by one warp: x (C) -> T (C), as torch.nn.LayerNorm. x and y are zero-padded; `exact`, which takes the result
// in f32, is not. Either output may be null.
template <class T>
__device__ __forceinline__ void normalise_row(const Norm& norm, const float* x, int padded, typename T::Bits* y,
                                              float* exact) {
    const int width = norm.width, first = 4 * lane();
    float4 held[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int c = first + i * VECTORS_WIDTH;
        held[i] = c < padded ? vector_at(x, c) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    float sum = 0.0f;
    const auto add = [&](const float4& v) { sum = sum + ((v.x + v.y) + (v.z + v.w)); };
#pragma unroll
    for (int i = 0; i < HELD; i++) add(held[i]);
    for (int c = first + HELD * VECTORS_WIDTH; c < padded; c += VECTORS_WIDTH) add(vector_at(x, c));
    const float mean = sum_of_warp(sum) / (float)width;
    float squares = 0.0f;
    const auto square = [&](const float4& v, int c) {
        const float apart[4] = {v.x - mean, v.y - mean, v.z - mean, v.w - mean};
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (c + j < width) squares = fmaf(apart[j], apart[j], squares);
    };
#pragma unroll
    for (int i = 0; i < HELD; i++) square(held[i], first + i * VECTORS_WIDTH);
    for (int c = first + HELD * VECTORS_WIDTH; c < padded; c += VECTORS_WIDTH) square(vector_at(x, c), c);
    const float scale = 1.0f / sqrtf(sum_of_warp(squares) / (float)width + norm.epsilon);
    const auto finish = [&](const float4& v, int c) {
        if (c >= padded) return;
        const float4 w = vector_at(norm.weight, c), b = vector_at(norm.bias, c);
        float normed[4] = {fmaf((v.x - mean) * scale, w.x, b.x), fmaf((v.y - mean) * scale, w.y, b.y),
                           fmaf((v.z - mean) * scale, w.z, b.z), fmaf((v.w - mean) * scale, w.w, b.w)};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (c + j >= width) normed[j] = 0.0f;
            if (exact && c + j < width) exact[c + j] = normed[j];
        }
        if (y) put_vector<T>(y + c, normed);
    };
#pragma unroll
    for (int i = 0; i < HELD; i++) finish(held[i], first + i * VECTORS_WIDTH);
    for (int c = first + HELD * VECTORS_WIDTH; c < padded; c += VECTORS_WIDTH) finish(vector_at(x, c), c);
}

struct NormArgs {
    const float* x;
    // Which rows of x; null means all, in order.
    const unsigned* rows;
    // Normed rows as T, and as f32; either may be null.
    void* y;
    float* exact;
    // Without a weight, rows are copied unchanged, and x may have any stride.
    Norm norm;
    // Numbers from one row to the next.
    int x_stride, y_stride, exact_stride;
    int count;
};

constexpr int NORM_WARPS = 4;

template <class T>
__device__ void normalise(const NormArgs& a) {
    let_next_start();
    // Prefetches into the nearest cache while the previous kernel runs.
    if (a.norm.weight) {
        for (int c = 4 * threadIdx.x; c < a.norm.width; c += 4 * WARP * NORM_WARPS) {
            fetch_ahead(a.norm.weight + c);
            fetch_ahead(a.norm.bias + c);
        }
    }
    wait_for_previous();
    const int row = blockIdx.x * NORM_WARPS + warp();
    if (row >= a.count) return;
    const float* x = a.x + (size_t)(a.rows ? a.rows[row] : row) * a.x_stride;
    typename T::Bits* y = a.y ? (typename T::Bits*)a.y + (size_t)row * a.y_stride : nullptr;
    float* exact = a.exact ? a.exact + (size_t)row * a.exact_stride : nullptr;
    if (a.norm.weight) {
        normalise_row<T>(a.norm, x, a.x_stride, y, exact);
        return;
    }
    for (int c = lane(); c < a.norm.width; c += WARP) {
        if (y) y[c] = T::store(x[c]);
        if (exact) exact[c] = x[c];
    }
}
