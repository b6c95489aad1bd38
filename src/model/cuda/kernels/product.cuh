// The part of a product that one warp computes, and how matrices of weights are stored.
#pragma once

#include "numbers.cuh"

// Matrices of weights are stored as products read them: for each 16 outputs and each step, two fragments of 16 bytes
// for every lane. Lane 4g + t holds, of the step's 64 bytes, the 16 at 16t of outputs g and g + 8.
constexpr int FRAGMENTS_BYTES = 16 * WARP;
constexpr int TILE_STEP_BYTES = 2 * FRAGMENTS_BYTES;

// Where an input of an output is in such a matrix with `stride` inputs, in numbers.
template <class T>
__device__ __forceinline__ size_t weight_at(int output, int input, int stride) {
    constexpr int SIZE = sizeof(typename T::Bits), STEP = STEP_BYTES / SIZE, OWN = 16 / SIZE;
    const int g = output % 8, is_lower = output % TILE_OUTPUTS / 8;
    const int t = input % STEP / OWN, i = input % OWN;
    // As `fragments` arranges them.
    const int fragment = SIZE == 4 ? is_lower : i / 4;
    const int at = SIZE == 4 ? i : i % 4 / 2 * 4 + is_lower * 2 + i % 2;
    const size_t tile = (size_t)(output / TILE_OUTPUTS) * TILE_OUTPUTS * stride;
    return tile + input / STEP * (TILE_STEP_BYTES / SIZE) + fragment * (FRAGMENTS_BYTES / SIZE) + (4 * g + t) * OWN +
           at;
}

// A lane's fragments of a step: `w` points to the first in the first of M tiles, which are `tile_bytes` apart.
template <int M>
__device__ __forceinline__ void load_weights(uint4 (&into)[M][2], const char* w, size_t tile_bytes) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        into[m][0] = *(const uint4*)(w + m * tile_bytes);
        into[m][1] = *(const uint4*)(w + m * tile_bytes + FRAGMENTS_BYTES);
    }
}

// The same from a matrix in rows, such as the cache: `rows` points to the lane's bytes in output g; outputs are
// `stride` bytes apart.
template <class T>
__device__ __forceinline__ void load_rows(uint4 (&into)[2], const char* rows, size_t stride) {
    T::fragments(into, *(const uint4*)rows, *(const uint4*)(rows + 8 * stride));
}

// The part of y = W x that a warp computes: 16 * M outputs of 8 * R rows. Lane 4g + t reads its 16 bytes of each step
// from outputs g and g + 8. At the end it holds, for each tile, outputs g, g, g + 8, g + 8 of rows 2t, 2t + 1, 2t, 2t +
// 1.
//
// For 16-bit numbers a step is two tensor-core products. They work with any order of the inputs, as long as weights and
// activations have the same one.
template <class T, int M, int R>
struct Product {
    float sum[M][R][4];

    __device__ __forceinline__ Product() { clear(); }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++) sum[m][r][0] = sum[m][r][1] = sum[m][r][2] = sum[m][r][3] = 0.0f;
    }

    // A lane's bytes of a step of the activations.
    struct Rows {
        uint4 held[R];

        // `x` points to this step's bytes of the first row; rows are `stride` bytes apart. Row i is at i ^ `swap`.
        __device__ __forceinline__ void ask(const char* x, int stride, int swap = 0) {
#pragma unroll
            for (int r = 0; r < R; r++)
                held[r] = *(const uint4*)(x + (r * TILE_ROWS + (lane() / 4 ^ swap)) * stride + 16 * (lane() % 4));
        }
    };

    // All first halves, then all second halves: the two products of a sum wait for each other.
    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const Rows& x) {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int m = 0; m < M; m++)
                T::mma(sum[m][r], {w[m][0].x, w[m][0].y, w[m][0].z, w[m][0].w}, {x.held[r].x, x.held[r].y});
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int m = 0; m < M; m++)
                T::mma(sum[m][r], {w[m][1].x, w[m][1].y, w[m][1].z, w[m][1].w}, {x.held[r].z, x.held[r].w});
    }

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const char* x, int stride) {
        Rows rows;
        rows.ask(x, stride);
        step(w, rows);
    }

    __device__ __forceinline__ void finish(float (&c)[M][R][4]) const {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) c[m][r][i] = sum[m][r][i];
    }
};

// In f32 without tensor cores, which would round the factors: each lane sums what it reads, for all rows.
template <int M, int R>
struct Product<F32, M, R> {
    float sum[M][R][2][TILE_ROWS];

    __device__ __forceinline__ Product() { clear(); }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int j = 0; j < TILE_ROWS; j++) sum[m][r][0][j] = sum[m][r][1][j] = 0.0f;
    }

    // Each lane needs 16 bytes of all rows: too much to prefetch.
    struct Rows {
        const char* x;
        int stride, swap;

        __device__ __forceinline__ void ask(const char* x, int stride, int swap = 0) {
            this->x = x;
            this->stride = stride;
            this->swap = swap;
        }
    };

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const Rows& x) {
        const int t = lane() % 4;
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < TILE_ROWS; j++) {
                const float4 v = *(const float4*)(x.x + (r * TILE_ROWS + (j ^ x.swap)) * x.stride + 16 * t);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        float& s = sum[m][r][half][j];
                        s = fmaf(__uint_as_float(w[m][half].x), v.x, s);
                        s = fmaf(__uint_as_float(w[m][half].y), v.y, s);
                        s = fmaf(__uint_as_float(w[m][half].z), v.z, s);
                        s = fmaf(__uint_as_float(w[m][half].w), v.w, s);
                    }
            }
    }

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const char* x, int stride) {
        Rows rows;
        rows.ask(x, stride);
        step(w, rows);
    }

    __device__ __forceinline__ void finish(float (&c)[M][R][4]) const {
        const int t = lane() % 4;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int half = 0; half < 2; half++)
#pragma unroll
                    for (int j = 0; j < TILE_ROWS; j++) {
                        float s = sum[m][r][half][j];
                        s += __shfl_xor_sync(0xffffffff, s, 1);
                        s += __shfl_xor_sync(0xffffffff, s, 2);
                        if (j / 2 == t) c[m][r][2 * half + j % 2] = s;
                    }
    }
};
