// Runs the CUDA kernels of kernels.cu on a CPU, to test their arithmetic and indexing where there
// is no GPU. Compile kernels.cu with
//     g++ -x c++ -std=c++17 -O2 -fno-strict-aliasing -ffp-contract=off -DEMULATED
// (kernels read memory through wider types than it was written with, which nvcc allows).
// -fsanitize=address,undefined works too and finds accesses out of bounds or misaligned.
//
// Blocks run one after another on the calling thread, and each thread of a block is a fiber that
// runs until it waits for others. Threads start in an order shuffled by block, a warp then runs as
// far ahead of the others as it can, and dynamic shared memory starts as NaN, so that a missing
// barrier shows in the results instead of working by luck.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#define EMULATOR_UCONTEXT
#endif

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block at a time runs on an OS thread, so its shared arrays can be that thread's.
#define __shared__ static thread_local

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
struct float3 {
    float x, y, z;
};
static inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }

#define INFINITY_F32 INFINITY

static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float f16_to_float(uint16_t bits) {
    unsigned sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude < 0x0400)  // subnormal
        return __uint_as_float(sign | __float_as_uint(magnitude * 0x1p-24f));
    if (magnitude >= 0x7c00)  // infinity or NaN
        return __uint_as_float(sign | 0x7f800000u | magnitude << 13);
    return __uint_as_float(sign | ((magnitude << 13) + (112u << 23)));
}

static inline uint16_t float_to_f16(float value) {
    unsigned bits = __float_as_uint(value);
    unsigned sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;  // the NaN that CUDA gives
    if (magnitude >= 143u << 23) return sign | 0x7c00;
    if (magnitude < 113u << 23)  // subnormal: 0.5's last bit is worth 2^-24, so the sum rounds
        return sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - __float_as_uint(0.5f));
    return sign | (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
}

static inline float bf16_to_float(uint16_t bits) {
    return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

static inline uint16_t float_to_bf16(float value) {
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the NaN that CUDA gives
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

namespace emulator {

constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr size_t MAX_SHARED = 227 << 10;  // what a block can have on the largest GPUs

// What a fiber is when it doesn't run.
#ifdef EMULATOR_UCONTEXT
using Context = ucontext_t;
#else
using Context = void*;  // its stack pointer; the registers are on the stack
#endif

enum class Wait : unsigned char { NOTHING, SYNCTHREADS, SYNCWARP, SHUFFLE, MMA, EXITED };

inline const char* wait_name(Wait wait) {
    switch (wait) {
        case Wait::NOTHING: return "can run";
        case Wait::SYNCTHREADS: return "in __syncthreads";
        case Wait::SYNCWARP: return "in __syncwarp";
        case Wait::SHUFFLE: return "in a warp shuffle";
        case Wait::MMA: return "in mma";
        case Wait::EXITED: return "returned";
    }
    return "?";
}

struct Warp {
    unsigned live, arrived;  // bits of lanes
    unsigned mask;           // lanes that every arrived lane expects
    Wait operation;
    unsigned char arrivals[WARP], count;
    // Operations alternate between two sets of results, because lanes may arrive at the next
    // operation before others have read the results of this one.
    unsigned parity;
    uint64_t values[2][WARP];
    alignas(16) float a[16][16], b[16][8], c[2][16][8];
};

struct Kernel {
    const char* name;
    size_t arguments_bytes;
    void (*run)(const void* arguments);
};

// The fibers' stacks, with a guard below each.
struct Stacks {
    static constexpr size_t SIZE = 64 << 10, GUARD = 16 << 10, STRIDE = SIZE + GUARD;
    char* base;
    unsigned usable = 0;

    Stacks() {
        void* address = mmap(nullptr, MAX_THREADS * STRIDE, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (address == MAP_FAILED) {
            perror("emulator: mmap");
            abort();
        }
        base = static_cast<char*>(address);
    }
    ~Stacks() { munmap(base, MAX_THREADS * STRIDE); }

    void provide(unsigned count) {
        for (; usable < count; usable++)
            if (mprotect(bottom(usable), SIZE, PROT_READ | PROT_WRITE) != 0) {
                perror("emulator: mprotect");
                abort();
            }
    }
    char* bottom(unsigned index) const { return base + index * STRIDE + GUARD; }
    // Tops differ in their low address bits, or all would compete for the same cache sets.
    char* top(unsigned index) const { return bottom(index) + SIZE - index * 7 % 64 * 64; }
};

struct Machine {
    const Kernel* kernel;
    const void* arguments;
    char* shared;
    Stacks stacks;
    Context launcher, contexts[MAX_THREADS];
    Wait waits[MAX_THREADS];
    unsigned current, live;
    // A stack: what became ready last runs next, while its stack is still in the nearest cache.
    unsigned ready[MAX_THREADS], ready_count;
    unsigned at_barrier[MAX_THREADS], at_barrier_count;
    Warp warps[MAX_THREADS / WARP];

    void make_ready(unsigned thread) {
        waits[thread] = Wait::NOTHING;
        ready[ready_count++] = thread;
    }
};

static thread_local Machine* machine;

[[noreturn]] inline void fail(const Machine& m, const char* problem) {
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u): %s\n", m.kernel->name, blockIdx.x,
            blockIdx.y, blockIdx.z, problem);
    for (unsigned first = 0, next; first < blockDim.x; first = next) {
        for (next = first + 1; next < blockDim.x && m.waits[next] == m.waits[first];) next++;
        fprintf(stderr, "  threads %u to %u: %s\n", first, next - 1, wait_name(m.waits[first]));
    }
    abort();
}

[[noreturn]] inline void fiber_main();

#ifdef EMULATOR_UCONTEXT
inline void switch_context(Context& from, const Context& to) { swapcontext(&from, &to); }

inline void start_context(Context& context, const Stacks& stacks, unsigned index) {
    getcontext(&context);
    context.uc_stack.ss_sp = stacks.bottom(index);
    context.uc_stack.ss_size = Stacks::SIZE;
    makecontext(&context, fiber_main, 0);
}
#else
// swapcontext would make a system call at each switch to save the signal mask.
extern "C" void switch_stacks(void** from, void* to) __asm__("gpt2_emulator_switch_stacks");

#if defined(__x86_64__)
// Words on a resting fiber's stack, and the one of them that execution goes on at.
constexpr unsigned SAVED = 8, ENTRY = 6;
__asm__(
    ".text\n"
    ".balign 16\n"
    "gpt2_emulator_switch_stacks:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    // Processors predict that ret returns to the latest call, which was that of another fiber.
    "    popq %rcx\n"
    "    jmp *%rcx\n"
    ".text\n");
#else
constexpr unsigned SAVED = 20, ENTRY = 11;
__asm__(
    ".text\n"
    ".balign 16\n"
    "gpt2_emulator_switch_stacks:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n"
    "    stp x21, x22, [sp, #16]\n"
    "    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n"
    "    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n"
    "    ldp x21, x22, [sp, #16]\n"
    "    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n"
    "    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".text\n");
#endif

inline void switch_context(Context& from, const Context& to) { switch_stacks(&from, to); }

inline void start_context(Context& context, const Stacks& stacks, unsigned index) {
    // The words are an even number, so that x86-64 enters fiber_main as if it had been called.
    void** words = reinterpret_cast<void**>(stacks.top(index)) - SAVED;
    for (unsigned i = 0; i < SAVED; i++) words[i] = nullptr;
    words[ENTRY] = reinterpret_cast<void*>(fiber_main);
    context = words;
}
#endif

inline void run_next(Machine& m, Context& from) {
    if (m.ready_count == 0) fail(m, "deadlock: all threads wait for one another");
    unsigned next = m.ready[--m.ready_count];
    m.current = next;
    threadIdx.x = next;
    switch_context(from, m.contexts[next]);
}

inline void suspend(Machine& m, Wait wait) {
    unsigned me = m.current;
    m.waits[me] = wait;
    run_next(m, m.contexts[me]);
}

inline void release_barrier(Machine& m) {
    for (unsigned i = 0; i < m.at_barrier_count; i++) m.make_ready(m.at_barrier[i]);
    m.at_barrier_count = 0;
}

inline void multiply(Warp& warp) {
    // Explicit vectors, as compilers don't find this in plain loops.
    typedef float Half __attribute__((vector_size(16), may_alias));
    for (unsigned row = 0; row < 16; row++) {
        Half* c = reinterpret_cast<Half*>(warp.c[warp.parity][row]);
        Half left = c[0], right = c[1];
        for (unsigned k = 0; k < 16; k++) {
            const Half* b = reinterpret_cast<const Half*>(warp.b[k]);
            left += warp.a[row][k] * b[0];
            right += warp.a[row][k] * b[1];
        }
        c[0] = left;
        c[1] = right;
    }
}

// Ends the operation at which all live lanes of a warp have arrived.
inline void complete(Machine& m, Warp& warp) {
    if (warp.live & ~warp.mask) fail(m, "a warp operation's mask leaves out live lanes");
    if (warp.operation == Wait::MMA) {
        if (warp.arrived != ALL_LANES) fail(m, "mma in a warp with lanes missing");
        multiply(warp);
    }
    for (unsigned lane = 0; warp.arrived != ALL_LANES && lane < WARP; lane++)
        if (!(warp.arrived >> lane & 1)) warp.values[warp.parity][lane] = ~uint64_t(0);
    unsigned first = static_cast<unsigned>(&warp - m.warps) * WARP;
    for (unsigned i = 0; i < warp.count; i++) m.make_ready(first + warp.arrivals[i]);
    warp.parity ^= 1;
    warp.arrived = 0;
    warp.count = 0;
}

// Returns when all live lanes of the warp have arrived.
inline void join(Machine& m, Warp& warp, Wait operation, unsigned mask) {
    unsigned lane = m.current % WARP;
    if (!warp.arrived) {
        warp.operation = operation;
        warp.mask = ALL_LANES;
    } else if (warp.operation != operation) {
        m.waits[m.current] = operation;
        fail(m, "lanes of a warp meet at different operations");
    }
    if (!(mask >> lane & 1)) fail(m, "a warp operation's mask leaves out the lane itself");
    warp.mask &= mask;
    warp.arrived |= 1u << lane;
    if (warp.arrived == warp.live) return complete(m, warp);
    warp.arrivals[warp.count++] = lane;
    suspend(m, operation);
}

inline void fiber_main() {
    Machine& m = *machine;
    m.kernel->run(m.arguments);
    unsigned me = m.current;
    Warp& warp = m.warps[me / WARP];
    m.waits[me] = Wait::EXITED;
    warp.live &= ~(1u << me % WARP);
    m.live--;
    // This may be the one that others wait for.
    if (warp.arrived && warp.arrived == warp.live) complete(m, warp);
    if (m.at_barrier_count && m.at_barrier_count == m.live) release_barrier(m);
    if (m.live)
        run_next(m, m.contexts[me]);
    else
        switch_context(m.contexts[me], m.launcher);
    abort();
}

inline void run_block(Machine& m, size_t shared_bytes, uint64_t number) {
    unsigned threads = blockDim.x;
    memset(m.shared, 0xff, shared_bytes);
    m.live = threads;
    m.ready_count = 0;
    m.at_barrier_count = 0;
    for (unsigned i = 0; i * WARP < threads; i++) {
        unsigned lanes = min(threads - i * WARP, WARP);
        m.warps[i].live = ALL_LANES >> (WARP - lanes);
        m.warps[i].arrived = m.warps[i].count = m.warps[i].parity = 0;
    }
    for (unsigned i = 0; i < threads; i++) {
        start_context(m.contexts[i], m.stacks, i);
        m.make_ready(i);
    }
    uint64_t random = number;
    for (unsigned i = threads - 1; i > 0; i--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        std::swap(m.ready[i], m.ready[(random >> 32) * (i + 1) >> 32]);
    }
    run_next(m, m.launcher);
}

inline int launch(const Kernel* kernels, size_t count, const char* name, const unsigned grid[3],
                  unsigned threads, size_t shared_bytes, const void* arguments,
                  size_t arguments_bytes) {
    static thread_local std::unique_ptr<Machine> owner;
    const Kernel* end = kernels + count;
    const Kernel* kernel =
        std::find_if(kernels, end, [=](const Kernel& k) { return strcmp(k.name, name) == 0; });
    if (kernel == end) return 1;
    if (kernel->arguments_bytes != arguments_bytes) return 2;
    if (threads == 0 || threads > MAX_THREADS || shared_bytes > MAX_SHARED || grid[0] == 0 ||
        grid[1] == 0 || grid[2] == 0 || grid[0] > 0x7fffffffu || grid[1] > 0xffffu ||
        grid[2] > 0xffffu) {
        fprintf(stderr,
                "emulator: kernel %s: no GPU runs %u x %u x %u blocks of %u threads with %zu bytes "
                "of shared memory\n",
                name, grid[0], grid[1], grid[2], threads, shared_bytes);
        abort();
    }
    // Of the exact sizes, so that a sanitizer sees accesses past the end; malloc aligns to 16.
    struct Free {
        void operator()(void* memory) const { free(memory); }
    };
    std::unique_ptr<void, Free> shared(malloc(max<size_t>(shared_bytes, 1)));
    std::unique_ptr<void, Free> copy(malloc(max<size_t>(arguments_bytes, 1)));
    if (!owner) owner.reset(new Machine);
    Machine& m = *owner;
    if (!shared || !copy) abort();
    memcpy(copy.get(), arguments, arguments_bytes);
    m.kernel = kernel;
    m.arguments = copy.get();
    m.shared = static_cast<char*>(shared.get());
    m.stacks.provide(threads);
    machine = &m;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    threadIdx = {0, 0, 0};
    uint64_t number = 0;
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                run_block(m, shared_bytes, number++);
            }
    return 0;
}

template <typename T>
inline T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles exchange at most 8 bytes");
    Machine& m = *machine;
    unsigned me = m.current;
    Warp& warp = m.warps[me / WARP];
    auto& values = warp.values[warp.parity];
    memcpy(&values[me % WARP], &value, sizeof value);
    join(m, warp, Wait::SHUFFLE, mask);
    memcpy(&value, &values[source % WARP], sizeof value);
    return value;
}

// The fragments are laid out as PTX's mma.sync.aligned.m16n8k16.row.col has them.
template <float to_float(uint16_t)>
inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Machine& m = *machine;
    unsigned me = m.current, group = me % WARP / 4, pair = me % 4 * 2;
    Warp& warp = m.warps[me / WARP];
    auto put = [](float* to, unsigned two) {
        to[0] = to_float(two & 0xffff);
        to[1] = to_float(two >> 16);
    };
    put(&warp.a[group][pair], a[0]);
    put(&warp.a[group + 8][pair], a[1]);
    put(&warp.a[group][pair + 8], a[2]);
    put(&warp.a[group + 8][pair + 8], a[3]);
    for (unsigned i = 0; i < 2; i++) {
        warp.b[pair + i * 8][group] = to_float(b[i] & 0xffff);
        warp.b[pair + i * 8 + 1][group] = to_float(b[i] >> 16);
    }
    float* upper = &warp.c[warp.parity][group][pair];
    float* lower = &warp.c[warp.parity][group + 8][pair];
    memcpy(upper, c, 2 * sizeof *c);
    memcpy(lower, c + 2, 2 * sizeof *c);
    join(m, warp, Wait::MMA, ALL_LANES);
    memcpy(c, upper, 2 * sizeof *c);
    memcpy(c + 2, lower, 2 * sizeof *c);
}

}  // namespace emulator

static inline char* dynamic_shared() { return emulator::machine->shared; }

static inline void __syncthreads() {
    emulator::Machine& m = *emulator::machine;
    if (m.at_barrier_count + 1 == m.live) return emulator::release_barrier(m);
    m.at_barrier[m.at_barrier_count++] = m.current;
    emulator::suspend(m, emulator::Wait::SYNCTHREADS);
}

static inline void __syncwarp(unsigned mask = emulator::ALL_LANES) {
    emulator::Machine& m = *emulator::machine;
    join(m, m.warps[m.current / emulator::WARP], emulator::Wait::SYNCWARP, mask);
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
    return emulator::shuffle(mask, value, threadIdx.x ^ lane_mask);
}

static inline void mma_m16n8k16_f16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::mma_m16n8k16<f16_to_float>(c, a, b);
}

static inline void mma_m16n8k16_bf16(float (&c)[4], const unsigned (&a)[4],
                                     const unsigned (&b)[2]) {
    emulator::mma_m16n8k16<bf16_to_float>(c, a, b);
}

static inline void __threadfence() {}

static inline unsigned atomicAdd(unsigned* address, unsigned value) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

static inline unsigned long long atomicMax(unsigned long long* address, unsigned long long value) {
    unsigned long long before = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (before < value &&
           !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}

#define EMULATED_KERNEL(kernel, Arguments)                                                        \
    {#kernel, sizeof(Arguments),                                                                  \
     [](const void* arguments) {                                                                  \
         static_assert(alignof(Arguments) <= 16, "malloc aligns no more");                        \
         kernel(*static_cast<const Arguments*>(arguments));                                       \
     }},

// Defines gpt2_emulate for the kernels of a list macro: LIST(K) is K(kernel, Arguments) for each.
// It returns 0, 1 where the name is unknown, or 2 where the arguments have the wrong size.
#define EMULATE(LIST)                                                                             \
    extern "C" int gpt2_emulate(const char* kernel, const unsigned grid[3], unsigned threads,     \
                                size_t shared_bytes, const void* arguments,                       \
                                size_t arguments_bytes) {                                         \
        static const emulator::Kernel kernels[] = {LIST(EMULATED_KERNEL)};                        \
        return emulator::launch(kernels, sizeof kernels / sizeof *kernels, kernel, grid, threads, \
                                shared_bytes, arguments, arguments_bytes);                        \
    }
