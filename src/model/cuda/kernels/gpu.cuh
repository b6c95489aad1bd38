// What the kernels use of a GPU, and what stands for it in the emulator.
#pragma once

#ifdef EMULATED
#include "emulator.hpp"
#define GRID_CONSTANT
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>
#include <stdint.h>

#define INFINITY_F32 CUDART_INF_F
#define GRID_CONSTANT __grid_constant__

extern __shared__ __align__(16) char dynamic_shared_memory[];
__device__ __forceinline__ char* dynamic_shared() { return dynamic_shared_memory; }

__device__ __forceinline__ float f16_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t float_to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ float bf16_to_float(uint16_t bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ __forceinline__ uint16_t float_to_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

#define MMA(name, type)                                                                                                \
    __device__ __forceinline__ void name(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {              \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                                     \
            ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "                                                             \
            "{%0,%1,%2,%3};"                                                                                           \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                           \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                       \
    }
MMA(mma_m16n8k16_f16, "f16")
MMA(mma_m16n8k16_bf16, "bf16")
#endif

// A kernel may start while the previous one still runs (programmatic dependent launch). It must not read what that one
// writes before `wait_for_previous`.
__device__ __forceinline__ void wait_for_previous() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel start.
__device__ __forceinline__ void let_next_start() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Prefetches a number that is read later.
__device__ __forceinline__ void fetch_ahead(const float* at) {
    (void)at;
#ifndef EMULATED
    asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
#endif
}

// Reads what other blocks of the same kernel have written.
template <class Number>
__device__ __forceinline__ Number read_of_other_blocks(const Number* at) {
#ifdef EMULATED
    return *at;
#else
    return __ldcg(at);
#endif
}

// Reads what no kernel writes while this one runs: such reads need not wait for earlier writes.
template <class Number>
__device__ __forceinline__ Number read_only(const Number* at) {
#ifdef EMULATED
    return *at;
#else
    return __ldg(at);
#endif
}

// 2^x, off by two units in the last place; smaller results than normal numbers are 0.
__device__ __forceinline__ float exp2_of(float x) {
#ifdef EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

constexpr float LOG2_E = 1.4426950408889634f;

// x / (1 + e^-u), without the branches of an exact division.
__device__ __forceinline__ float times_sigmoid(float x, float u) {
    const float below = 1.0f + exp2_of(-LOG2_E * u);
#ifdef EMULATED
    return x / below;
#else
    return __fdividef(x, below);
#endif
}

// Starts copying 16 bytes to shared memory and returns.
__device__ __forceinline__ void copy_ahead(char* to, const char* from) {
#ifdef EMULATED
    *(uint4*)to = *(const uint4*)from;
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from)
                 : "memory");
#endif
}

// Ends a group of copies.
__device__ __forceinline__ void end_copies() {
#ifndef EMULATED
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all groups of copies except the last N.
template <int N>
__device__ __forceinline__ void wait_for_copies() {
#ifndef EMULATED
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
