// Types of numbers, and what the threads of a warp do together.
#pragma once

#include "gpu.cuh"

struct F32 {
    using Bits = float;
    static __device__ __forceinline__ float load(float x) { return x; }
    static __device__ __forceinline__ float store(float x) { return x; }
    static __device__ __forceinline__ void fragments(uint4 (&into)[2], const uint4& upper, const uint4& lower) {
        into[0] = upper;
        into[1] = lower;
    }
};

// The two products of a step take the first and the second halves of a lane's bytes, from both outputs.
__device__ __forceinline__ void fragments_of_16_bits(uint4 (&into)[2], const uint4& upper, const uint4& lower) {
    into[0] = make_uint4(upper.x, lower.x, upper.y, lower.y);
    into[1] = make_uint4(upper.z, lower.z, upper.w, lower.w);
}

struct F16 {
    using Bits = uint16_t;
    static __device__ __forceinline__ void fragments(uint4 (&into)[2], const uint4& upper, const uint4& lower) {
        fragments_of_16_bits(into, upper, lower);
    }
    static __device__ __forceinline__ float load(uint16_t x) { return f16_to_float(x); }
    static __device__ __forceinline__ uint16_t store(float x) { return float_to_f16(x); }
    static __device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_m16n8k16_f16(c, a, b);
    }
};

struct BF16 {
    using Bits = uint16_t;
    static __device__ __forceinline__ void fragments(uint4 (&into)[2], const uint4& upper, const uint4& lower) {
        fragments_of_16_bits(into, upper, lower);
    }
    static __device__ __forceinline__ float load(uint16_t x) { return bf16_to_float(x); }
    static __device__ __forceinline__ uint16_t store(float x) { return float_to_bf16(x); }
    static __device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_m16n8k16_bf16(c, a, b);
    }
};

constexpr int WARP = 32;
// What a warp multiplies at a time: 64 bytes of each row, 16 for each of four lanes.
constexpr int STEP_BYTES = 64;
// Outputs of a product are computed 16 at a time, rows 8 at a time: the shape of the tensor cores' m16n8k16.
constexpr int TILE_OUTPUTS = 16;
constexpr int TILE_ROWS = 8;
// Parts into which the inputs of a product are split.
constexpr int SLICES = 8;
// Positions in a page of the cache.
constexpr int PAGE_POSITIONS = 64;

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp() { return threadIdx.x / WARP; }

__device__ __forceinline__ float sum_of_warp(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffff, x, distance);
    return x;
}
