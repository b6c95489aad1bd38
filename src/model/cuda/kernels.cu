// The network's operations on an NVIDIA GPU.
//
// Every output number is one fixed chain of operations, whatever else is computed beside it: a product is split into
// SLICES along its inputs, each slice is summed in one order, and slices are added in order; attention is split into
// pages, and pages are mixed in order. So a row gives the same bits alone and in a batch, read at once
// or token by token. Which kernel computes a product (for few rows or many) changes who does the work, not the chain.
//
// Compiled without contraction (-fmad=false): only an explicit fmaf is a fused multiply-add.
//
// Shapes: N new tokens of all rows, C the model's width, H heads, D a head's width, V the vocabulary. Rows of matrices
// are zero-padded to multiples of PADDING numbers, numbers of rows to whole tiles.
//
// With -DEMULATED, the same file is C++ for the host, for tests without a GPU (emulator.hpp).

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
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "      \
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
template <class Number> __device__ __forceinline__ Number read_of_other_blocks(const Number* at) {
#ifdef EMULATED
    return *at;
#else
    return __ldcg(at);
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
template <int N> __device__ __forceinline__ void wait_for_copies() {
#ifndef EMULATED
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ---- Numbers ----

struct F32 {
    using Bits = float;
    static __device__ __forceinline__ float load(float x) { return x; }
    static __device__ __forceinline__ float store(float x) { return x; }
};

struct F16 {
    using Bits = uint16_t;
    static __device__ __forceinline__ float load(uint16_t x) { return f16_to_float(x); }
    static __device__ __forceinline__ uint16_t store(float x) { return float_to_f16(x); }
    static __device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
        mma_m16n8k16_f16(c, a, b);
    }
};

struct BF16 {
    using Bits = uint16_t;
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

// ---- Products ----

// The part of y = W x that a warp computes: 16 * M outputs of 8 * R rows. Lane 4g + t reads its 16 bytes of each step
// from outputs g and g + 8. At the end it holds, for each tile, outputs g, g, g + 8, g + 8 of rows 2t, 2t + 1, 2t, 2t +
// 1.
//
// For 16-bit numbers a step is two tensor-core products. They work with any order of the inputs, as long as weights and
// activations have the same one.
template <class T, int M, int R> struct Product {
    float sum[M][R][4];

    __device__ __forceinline__ Product() {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++) sum[m][r][0] = sum[m][r][1] = sum[m][r][2] = sum[m][r][3] = 0.0f;
    }

    // A lane's bytes of a step of the activations.
    struct Rows {
        uint4 held[R];

        // `x` points to this step's bytes of the first row; rows are `stride` bytes apart.
        __device__ __forceinline__ void ask(const char* x, int stride) {
#pragma unroll
            for (int r = 0; r < R; r++)
                held[r] = *(const uint4*)(x + (r * TILE_ROWS + lane() / 4) * stride + 16 * (lane() % 4));
        }
    };

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const Rows& x) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            const uint4 v = x.held[r];
#pragma unroll
            for (int m = 0; m < M; m++) {
                T::mma(sum[m][r], {w[m][0].x, w[m][1].x, w[m][0].y, w[m][1].y}, {v.x, v.y});
                T::mma(sum[m][r], {w[m][0].z, w[m][1].z, w[m][0].w, w[m][1].w}, {v.z, v.w});
            }
        }
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
template <int M, int R> struct Product<F32, M, R> {
    float sum[M][R][2][TILE_ROWS];

    __device__ __forceinline__ Product() {
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
        int stride;

        __device__ __forceinline__ void ask(const char* x, int stride) {
            this->x = x;
            this->stride = stride;
        }
    };

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const Rows& x) { step(w, x.x, x.stride); }

    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const char* x, int stride) {
        const int t = lane() % 4;
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < TILE_ROWS; j++) {
                const float4 v = *(const float4*)(x + (r * TILE_ROWS + j) * stride + 16 * t);
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

// A lane's bytes of a step: `w` points to them in output g of the first tile; outputs are `stride` bytes apart.
template <int M> __device__ __forceinline__ void load_weights(uint4 (&into)[M][2], const char* w, size_t stride) {
#pragma unroll
    for (int m = 0; m < M; m++) {
        into[m][0] = *(const uint4*)(w + m * TILE_OUTPUTS * stride);
        into[m][1] = *(const uint4*)(w + (m * TILE_OUTPUTS + 8) * stride);
    }
}

// ---- Layer norm ----

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
template <class T> __device__ __forceinline__ void put_vector(typename T::Bits* at, const float (&x)[4]) {
    struct __align__(4 * sizeof(typename T::Bits)) Four {
        typename T::Bits x[4];
    } four;
    for (int j = 0; j < 4; j++) four.x[j] = T::store(x[j]);
    *(Four*)at = four;
}

// One row, by one warp: x (C) -> T (C), as torch.nn.LayerNorm. x and y are zero-padded; `exact`, which takes the result
// in f32, is not. Either output may be null.
template <class T>
__device__ __forceinline__ void normalise_row(const Norm& norm, const float* x, int padded, typename T::Bits* y, float* exact) {
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

template <class T> __device__ void normalise(const NormArgs& a) {
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

// ---- Matrix products ----

enum Into { INTO_QKV, INTO_RESIDUAL, INTO_ACTIVATED, INTO_LOGITS };
enum Activation { GELU_TANH, GELU_ERF, RELU, SILU, GELU_10, QUICK_GELU, TANH };

struct MatmulArgs {
    // (outputs, inputs), rows of `row_bytes`.
    const char* weight;
    // (outputs), or null.
    const float* bias;
    // (rows, inputs) as T, rows of `row_bytes`; f32 with `norm_stride` numbers per row if the kernel applies a norm
    // first.
    const char* x;
    // Where outputs go, in rows of `y_stride` numbers: for INTO_QKV queries (rows, H, padded D) as T, INTO_RESIDUAL
    // added to f32, INTO_ACTIVATED as T, INTO_LOGITS as f32, or nowhere if null.
    void* y;
    // INTO_QKV: the page of the cache that takes each row, and its position there.
    const unsigned long long* pages;
    const unsigned* positions;
    // Which rows of x are normed; null means all, in order.
    const unsigned* picked;
    // INTO_LOGITS: the best token of each row from row `best_from` on, or null.
    unsigned long long* best;
    Norm norm;
    int norm_stride;
    int row_bytes;
    int rows, outputs;
    int y_stride;
    int into, activation;
    // INTO_QKV: where this layer's keys and values begin in a page, in numbers.
    int keys_at, values_at;
    int heads, head_dim;
    // Padded widths of a head's keys and values.
    int key_dim, value_dim;
    int best_from;
};

// A logit and its token as one number, the largest for the best. Of equal logits the first token wins; a logit that is
// not finite beats everything.
__device__ __forceinline__ unsigned long long rank_of(float logit, unsigned id) {
    const unsigned bits = __float_as_uint(logit);
    const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    // -0 equals 0.
    return isfinite(logit) ? (unsigned long long)(bits == 0x80000000u ? bits : ordered) << 32 | (unsigned)~id : ~0ull;
}

__device__ __forceinline__ unsigned long long larger(unsigned long long a, unsigned long long b) { return a > b ? a : b; }

__device__ __forceinline__ float activate(int activation, float x) {
    switch (activation) {
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case RELU: return x < 0.0f ? 0.0f : x;
    case GELU_10: return fminf(fmaxf(0.5f * x * (1.0f + erff(x * 0.7071067811865476f)), -10.0f), 10.0f);
    case QUICK_GELU: return x / (1.0f + expf(-1.702f * x));
    case TANH: return tanhf(x);
    default: return x / (1.0f + expf(-x));
    }
}

// Where one output of a product goes, for any row.
template <class T> struct Destination {
    float bias;
    // A column of y; or, in the cache, the number's index at the first position of a page, and the step to the next
    // position.
    size_t column;
    int step;
    bool is_output, is_cached;

    __device__ __forceinline__ Destination(const MatmulArgs& a, int output) {
        is_output = output < a.outputs;
        bias = is_output && a.bias ? a.bias[output] : 0.0f;
        column = output;
        step = 0;
        is_cached = false;
        if (a.into != INTO_QKV) return;
        const int width = a.heads * a.head_dim;
        const int part = output / width, head = output % width / a.head_dim, d = output % a.head_dim;
        is_cached = part > 0;
        if (part == 0) {
            column = head * a.key_dim + d;
        } else if (part == 1) {
            column = a.keys_at + (size_t)head * PAGE_POSITIONS * a.key_dim + d;
            step = a.key_dim;
        } else {
            column = a.values_at + (size_t)(head * a.value_dim + d) * PAGE_POSITIONS;
            step = 1;
        }
    }

    __device__ __forceinline__ void put(const MatmulArgs& a, int row, float y) const {
        using Bits = typename T::Bits;
        if (row >= a.rows || !is_output) return;
        y = a.bias ? y + bias : y;
        const size_t at = (size_t)row * a.y_stride + column;
        switch (a.into) {
        case INTO_QKV:
            if (is_cached) {
                ((Bits*)a.pages[row])[column + (size_t)a.positions[row] * step] = T::store(y);
            } else {
                ((Bits*)a.y)[at] = T::store(y);
            }
            break;
        case INTO_RESIDUAL: ((float*)a.y)[at] += y; break;
        case INTO_ACTIVATED: ((Bits*)a.y)[at] = T::store(activate(a.activation, y)); break;
        default:
            if (a.y) ((float*)a.y)[at] = y;
        }
    }
};

// The pitch of rows of sums in shared memory, chosen to avoid bank conflicts.
constexpr int SUMS_PITCH = 20;

// Few rows: a block computes 16 outputs of up to 8 * R rows at a time, each warp one slice of the inputs. AHEAD steps
// of weights are requested before the kernel waits for its activations, and before it finishes the previous outputs.
// With NORM, the block first norms its own copy of the rows in shared memory.
template <class T, int R, int AHEAD, bool NORM> __device__ void matmul_narrow(const MatmulArgs& a) {
    using Bits = typename T::Bits;
    __shared__ float sums[SLICES][TILE_ROWS * R * SUMS_PITCH];
    let_next_start();
    const int g = lane() / 4, t = lane() % 4;
    const int first_row = blockIdx.x * TILE_ROWS * R;
    const int tiles = (a.outputs + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
    const int steps = a.row_bytes / STEP_BYTES;
    const int begin = warp() * steps / SLICES, end = (warp() + 1) * steps / SLICES;
    const char* w;
    uint4 ahead[AHEAD][1][2];
    const auto ask = [&](int tile) {
        w = a.weight + (size_t)(tile * TILE_OUTPUTS + g) * a.row_bytes + 16 * t;
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (begin + i < end) load_weights<1>(ahead[i], w + (size_t)(begin + i) * STEP_BYTES, a.row_bytes);
    };
    int tile = blockIdx.y;
    ask(tile);
    const char* x = a.x + (size_t)first_row * a.row_bytes;
    int stride = a.row_bytes;
    if (!NORM) {
        wait_for_previous();
    } else {
        // The norm's weights, then the rows, whose starts are 16 bytes apart in the banks.
        float* weight = (float*)dynamic_shared();
        float* bias = weight + a.norm_stride;
        char* shared = (char*)(bias + a.norm_stride);
        stride = a.row_bytes + 16;
        for (int c = threadIdx.x; c < a.norm_stride; c += WARP * SLICES) {
            weight[c] = a.norm.weight[c];
            bias[c] = a.norm.bias[c];
        }
        wait_for_previous();
        __syncthreads();
        for (int row = warp(); row < TILE_ROWS * R; row += SLICES) {
            char* to = shared + row * stride;
            if (first_row + row < a.rows) {
                const Norm norm = {weight, bias, a.norm.epsilon, a.norm.width};
                const size_t from = a.picked ? a.picked[first_row + row] : first_row + row;
                normalise_row<T>(norm, (const float*)a.x + from * a.norm_stride, a.norm_stride, (Bits*)to, nullptr);
            } else {
                for (int i = lane(); i < a.row_bytes / 16; i += WARP) ((uint4*)to)[i] = make_uint4(0, 0, 0, 0);
            }
        }
        __syncthreads();
        x = shared;
    }
    const int output = threadIdx.x % TILE_OUTPUTS;
    // The best of the thread's outputs so far, for each of its rows.
    constexpr int SUMS = TILE_OUTPUTS * TILE_ROWS * R, OWN_ROWS = (SUMS + WARP * SLICES - 1) / (WARP * SLICES);
    unsigned long long best[OWN_ROWS] = {};
    while (true) {
        const int own_output = tile * TILE_OUTPUTS + output;
        const Destination<T> destination(a, own_output);
        Product<T, 1, R> product;
        typename Product<T, 1, R>::Rows rows[2];
        if (begin < end) rows[0].ask(x + begin * STEP_BYTES, stride);
        for (int step = begin; step < end; step += AHEAD) {
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (step + i < end) {
                    if (step + i + 1 < end) rows[(i + 1) % 2].ask(x + (step + i + 1) * STEP_BYTES, stride);
                    product.step(ahead[i], rows[i % 2]);
                    const int next = step + i + AHEAD;
                    if (next < end) load_weights<1>(ahead[i], w + (size_t)next * STEP_BYTES, a.row_bytes);
                }
            }
        }
        tile += gridDim.y;
        if (tile < tiles) ask(tile);
        float c[1][R][4];
        product.finish(c);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[warp()][(r * TILE_ROWS + 2 * t + i % 2) * SUMS_PITCH + g + i / 2 * 8] = c[0][r][i];
        __syncthreads();
        // Whole warps: there are 128 sums per tile of rows. A thread has the same output in each.
#pragma unroll
        for (int own = 0; own < OWN_ROWS; own++) {
            const int i = threadIdx.x + own * WARP * SLICES;
            if (i >= SUMS) break;
            const int row = i / TILE_OUTPUTS;
            float y = 0.0f;
#pragma unroll
            for (int slice = 0; slice < SLICES; slice++) y += sums[slice][row * SUMS_PITCH + output];
            destination.put(a, first_row + row, y);
            if (a.best && own_output < a.outputs) best[own] = larger(best[own], rank_of(y, own_output));
        }
        if (tile >= tiles) break;
        __syncthreads();
    }
    if (!a.best) return;
#pragma unroll
    for (int own = 0; own < OWN_ROWS; own++) {
        const int i = threadIdx.x + own * WARP * SLICES;
        if (i >= SUMS) break;
        const int row = first_row + i / TILE_OUTPUTS, wanted = row - a.best_from;
        for (int distance = TILE_OUTPUTS / 2; distance > 0; distance /= 2)
            best[own] = larger(best[own], __shfl_xor_sync(0xffffffff, best[own], distance));
        if (output == 0 && wanted >= 0 && row < a.rows) atomicMax(a.best + wanted, best[own]);
    }
}

// Many rows: a block computes WIDE outputs of WIDE rows, each warp 32 outputs of 8 * R rows, one slice after the other.
// Weights and activations go through shared memory, in STAGES of two steps each.
constexpr int WIDE = 64;
constexpr int STAGE_STEPS = 2;
constexpr int STAGES = 3;

template <class T, int R> __device__ void matmul_wide(const MatmulArgs& a) {
    constexpr int M = 2;
    constexpr int DOWN = WIDE / (TILE_OUTPUTS * M);
    constexpr int WARPS = DOWN * WIDE / (TILE_ROWS * R);
    constexpr int STAGE_BYTES = 2 * WIDE * STAGE_STEPS * STEP_BYTES;
    let_next_start();
    wait_for_previous();
    const int g = lane() / 4, t = lane() % 4;
    const int first_row = blockIdx.x * WIDE, first_output = blockIdx.y * WIDE;
    const int own_output = warp() % DOWN * TILE_OUTPUTS * M, own_row = warp() / DOWN * TILE_ROWS * R;
    const int steps = a.row_bytes / STEP_BYTES;
    const int stages = (steps + STAGE_STEPS - 1) / STAGE_STEPS;
    char* shared = dynamic_shared();
    // A stage holds for each step first the weights, then the activations, 64 bytes of each output and row. A thread
    // copies 16 bytes of every LINES-th.
    constexpr int LINES = WARP * WARPS / 4;
    const int line = threadIdx.x / 4, quarter = threadIdx.x % 4;
    const char* own_w = a.weight + (size_t)(first_output + line) * a.row_bytes + 16 * quarter;
    const char* own_x = a.x + (size_t)(first_row + line) * a.row_bytes + 16 * quarter;
    const auto fetch = [&](int stage) {
        char* to = shared + stage % STAGES * STAGE_BYTES + 16 * threadIdx.x;
#pragma unroll
        for (int step = 0; step < STAGE_STEPS; step++) {
            const int at = stage * STAGE_STEPS + step;
            if (at >= steps) break;
#pragma unroll
            for (int from = 0; from < WIDE; from += LINES) {
                char* line_to = to + (step * 2 * WIDE + from) * STEP_BYTES;
                copy_ahead(line_to, own_w + (size_t)from * a.row_bytes + at * STEP_BYTES);
                copy_ahead(line_to + WIDE * STEP_BYTES, own_x + (size_t)from * a.row_bytes + at * STEP_BYTES);
            }
        }
    };
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages) fetch(stage);
        end_copies();
    }
    float total[M][R][4] = {};
    Product<T, M, R> product;
    int slice = 0, slice_end = steps / SLICES;
    // Adds the slices that end before the given step.
    const auto end_slices = [&](int step) {
        while (slice < SLICES && slice_end == step) {
            float c[M][R][4];
            product.finish(c);
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < 4; i++) total[m][r][i] += c[m][r][i];
            product = Product<T, M, R>();
            slice++;
            slice_end = (slice + 1) * steps / SLICES;
        }
    };
    for (int stage = 0; stage < stages; stage++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        if (stage + STAGES - 1 < stages) fetch(stage + STAGES - 1);
        end_copies();
        const char* from = shared + stage % STAGES * STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < STAGE_STEPS; i++) {
            const int step = stage * STAGE_STEPS + i;
            if (step < steps) {
                end_slices(step);
                const char* w = from + i * 2 * WIDE * STEP_BYTES;
                uint4 weights[M][2];
                load_weights<M>(weights, w + (own_output + g) * STEP_BYTES + 16 * t, STEP_BYTES);
                product.step(weights, w + (WIDE + own_row) * STEP_BYTES, STEP_BYTES);
            }
        }
    }
    end_slices(steps);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const Destination<T> destination(a, first_output + own_output + m * TILE_OUTPUTS + g + half * 8);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    destination.put(a, first_row + own_row + r * TILE_ROWS + 2 * t + i, total[m][r][2 * half + i]);
        }
}

// ---- Attention ----

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
template <class T, int R> struct Scored {
    static constexpr int QUERIES = TILE_ROWS * R;
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
template <class T> struct Keys {
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
            if (i * STEP_BYTES < bytes) load_weights<1>(held[i], at + i * STEP_BYTES, bytes);
    }

    template <int R> __device__ __forceinline__ void multiply(Product<T, 1, R>& product, const char* q, int stride) const {
#pragma unroll
        for (int i = 0; i < HELD_STEPS; i++)
            if (i * STEP_BYTES < bytes) product.step(held[i], q + i * STEP_BYTES, stride);
        for (int i = HELD_STEPS; i * STEP_BYTES < bytes; i++) {
            uint4 weights[1][2];
            load_weights<1>(weights, at + i * STEP_BYTES, bytes);
            product.step(weights, q + i * STEP_BYTES, stride);
        }
    }
};

// The values of a page's positions, for 16 numbers of a head.
template <class T> struct Values {
    static constexpr int BYTES = PAGE_POSITIONS * (int)sizeof(typename T::Bits);
    static constexpr int STEPS = BYTES / STEP_BYTES;
    uint4 held[STEPS][1][2];

    __device__ __forceinline__ void ask(const AttentionArgs& a, const typename T::Bits* page, int head, int d) {
        const char* values = (const char*)(page + a.values_at + (size_t)head * a.value_dim * PAGE_POSITIONS);
        const char* at = values + (size_t)(d + lane() / 4) * BYTES + 16 * (lane() % 4);
#pragma unroll
        for (int i = 0; i < STEPS; i++) load_weights<1>(held[i], at + i * STEP_BYTES, BYTES);
    }

    template <int R> __device__ __forceinline__ void mix(float (&c)[1][R][4], const Scored<T, R>& scored) const {
        Product<T, 1, R> product;
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            product.step(held[i], (const char*)scored.probabilities + i * STEP_BYTES,
                         Scored<T, R>::PITCH * (int)sizeof(typename T::Bits));
        product.finish(c);
    }
};

// Scores one page, from `base` on, and leaves the probabilities in shared memory.
template <class T, int R>
__device__ __forceinline__ void score(const AttentionArgs& a, const Queries& queries, int head, int base,
                                      const Keys<T>& keys, Scored<T, R>& scored) {
    using Bits = typename T::Bits;
    const int g = lane() / 4, t = lane() % 4;
    const char* q = a.q + ((size_t)queries.first * a.q_stride + head * a.key_dim) * sizeof(Bits);
    Product<T, 1, R> product;
    keys.multiply(product, q, a.q_stride * (int)sizeof(Bits));
    float s[1][R][4];
    product.finish(s);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int position = base + warp() * TILE_OUTPUTS + g + i / 2 * 8;
            const int query = r * TILE_ROWS + 2 * t + i % 2;
            s[0][r][i] = position <= queries.position + query ? s[0][r][i] * a.scale : -INFINITY_F32;
        }
    // The largest score of each query, over the lanes with its column and over the warps.
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = fmaxf(s[0][r][i], s[0][r][i + 2]);
#pragma unroll
            for (int distance = 4; distance < WARP; distance *= 2)
                most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, distance));
            if (g == 0) scored.largest[warp()][r * TILE_ROWS + 2 * t + i] = most;
        }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int query = r * TILE_ROWS + 2 * t + i;
            float most = scored.largest[0][query];
#pragma unroll
            for (int w = 1; w < ATTENTION_WARPS; w++) most = fmaxf(most, scored.largest[w][query]);
            float sum = 0.0f;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float own = s[0][r][i + 2 * half];
                const int position = warp() * TILE_OUTPUTS + g + half * 8;
                // NaN stays NaN.
                const float p = own == -INFINITY_F32 ? 0.0f : expf(own - most);
                scored.probabilities[query * Scored<T, R>::PITCH + position] = T::store(p);
                if (a.weights && query < queries.count && base + position <= queries.position + query) {
                    a.weights[queries.weights_at + (size_t)head * queries.weights_head +
                              (size_t)query * queries.weights_stride + base + position] = p;
                }
                sum += p;
            }
#pragma unroll
            for (int distance = 4; distance < WARP; distance *= 2)
                sum += __shfl_xor_sync(0xffffffff, sum, distance);
            if (g == 0) scored.sums[warp()][query] = sum;
        }
    __syncthreads();
}

// Factors for mixing pages: x for what was mixed so far, y for the new page; z is the largest score.
__device__ __forceinline__ float3 factors(float before, float now) {
    const float most = fmaxf(before, now);
    return make_float3(expf(before - most), expf(now - most), most);
}

__device__ __forceinline__ float add_scaled(float before, float now, const float3& factors) {
    return fmaf(factors.y, now, factors.x * before);
}

// The most pages whose factors fit in shared memory; more are mixed in groups of this size.
constexpr int MIXED_PAGES = 64;

// Few queries per row: a thread block mixes the values of one page for one head and one tile of queries;
// the last one to finish adds the pages in order. FlashAttention's arithmetic (Dao 2023, arXiv 2307.08691), split
// along positions.
template <class T, int R> __device__ void attention_split(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    constexpr int QUERIES = TILE_ROWS * R;
    __shared__ Scored<T, R> scored;
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
        float c[1][R][4];
        values.mix(c, scored);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int query = r * TILE_ROWS + 2 * t + j % 2;
                if (query < queries.count)
                    a.partial[(at + query * query_stride) * a.value_dim + i + g + j / 2 * 8] = c[0][r][j];
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
            const float factor = expf(read_of_other_blocks(total).x - most_so_far[query]);
            weights[i] = read_of_other_blocks(weights + i) * factor / sums[query];
        }
    }
}

// Many queries, of one row or of several: a thread block goes through all pages for one tile of queries
// and 64 numbers of a head, requesting each page before it finishes the previous one. The same arithmetic.
template <class T, int R> __device__ void attention_whole(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    __shared__ Scored<T, R> scored;
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
    float most[R][2], sum[R][2], mixed[R][4] = {};
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[r][i] = -INFINITY_F32;
            sum[r][i] = 0.0f;
        }
    for (int b = 0; b < pages; b++) {
        if (b + 1 < pages) ask(next_keys, next_values, b + 1);
        score(a, queries, head, b * PAGE_POSITIONS, keys, scored);
        float c[1][R][4];
        if (d < a.value_dim) values.mix(c, scored);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int query = r * TILE_ROWS + 2 * t + i;
                if (b * PAGE_POSITIONS > queries.position + query) continue;
                const float2 total = scored.total(query);
                const float3 by = factors(most[r][i], total.x);
                most[r][i] = by.z;
                sum[r][i] = add_scaled(sum[r][i], total.y, by);
                mixed[r][i] = add_scaled(mixed[r][i], c[0][r][i], by);
                mixed[r][i + 2] = add_scaled(mixed[r][i + 2], c[0][r][i + 2], by);
            }
        keys = next_keys;
        values = next_values;
        // Nobody may overwrite what others still read.
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int query = r * TILE_ROWS + 2 * t + i % 2, own = d + g + i / 2 * 8;
            if (query < queries.count && own < a.head_dim) {
                const size_t row = (size_t)(queries.first + query) * a.y_stride;
                ((Bits*)a.y)[row + head * a.head_dim + own] = T::store(mixed[r][i] / sum[r][i % 2]);
            }
        }
}

// ---- The ends of the network ----

struct EmbedArgs {
    const void* wte;
    const void* wpe;
    const unsigned* ids;
    const unsigned* positions;
    float* x;
    // Where the pass collects the best tokens, or null.
    unsigned long long* best;
    int stride, width;
    int best_count;
};

// Token plus position embedding of one token: (N, C) in f32.
template <class T> __device__ void embed(const EmbedArgs& a) {
    using Bits = typename T::Bits;
    let_next_start();
    wait_for_previous();
    const size_t token = blockIdx.x;
    const Bits* wte = (const Bits*)a.wte + (size_t)a.ids[token] * a.stride;
    const Bits* wpe = (const Bits*)a.wpe + (size_t)a.positions[token] * a.stride;
    for (int c = threadIdx.x; c < a.width; c += blockDim.x) a.x[token * a.stride + c] = T::load(wte[c]) + T::load(wpe[c]);
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < a.best_count; i += blockDim.x) a.best[i] = 0;
}

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
    const float power =
        __uint_as_float((__float_as_uint(rounded) - __float_as_uint(round) + 127u) << 23);
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

// ---- Loading ----

enum Stored { STORED_F32, STORED_F16, STORED_BF16 };

struct PlaceArgs {
    const void* from;
    // (outputs, stride), with zero padding.
    void* to;
    int outputs, inputs, stride;
    int stored;
    // Whether `from` is (inputs, outputs).
    int transposed;
};

// A matrix as stored in a file -> T, (outputs, inputs), padded.
template <class T> __device__ void place(const PlaceArgs& a) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)a.outputs * a.inputs) return;
    // Neighbouring threads write adjacent numbers.
    const size_t output = i / a.inputs, input = i % a.inputs;
    const size_t at = a.transposed ? input * a.outputs + output : i;
    float x;
    switch (a.stored) {
    case STORED_F32: x = ((const float*)a.from)[at]; break;
    case STORED_F16: x = f16_to_float(((const uint16_t*)a.from)[at]); break;
    default: x = bf16_to_float(((const uint16_t*)a.from)[at]);
    }
    ((typename T::Bits*)a.to)[output * a.stride + input] = T::store(x);
}

// ---- Entry points ----

#define KERNEL(name, threads, Args, body)                                                                              \
    extern "C" __global__ void __launch_bounds__(threads) name(GRID_CONSTANT const Args a) { body(a); }

#define KERNELS_OF(T, type)                                                                                            \
    KERNEL(place_##type, 256, PlaceArgs, place<T>)                                                                     \
    KERNEL(embed_##type, 256, EmbedArgs, embed<T>)                                                                     \
    KERNEL(normalise_##type, WARP * NORM_WARPS, NormArgs, normalise<T>)                                                \
    KERNEL(matmul_8_normed_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 1, 4, true>))                          \
    KERNEL(matmul_8_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 1, 4, false>))                                \
    KERNEL(matmul_8_deep_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 1, 12, false>))                          \
    KERNEL(matmul_16_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 2, 4, false>))                               \
    KERNEL(matmul_32_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 4, 4, false>))                               \
    KERNEL(matmul_64x64_##type, sizeof(T::Bits) == 4 ? 256 : 128, MatmulArgs,                                          \
           (matmul_wide<T, sizeof(T::Bits) == 4 ? 2 : 4>))                                                             \
    KERNEL(attention_split_##type, WARP * ATTENTION_WARPS, AttentionArgs, (attention_split<T, 1>))                     \
    KERNEL(attention_8_##type, WARP * ATTENTION_WARPS, AttentionArgs, (attention_whole<T, 1>))                         \
    KERNEL(attention_32_##type, WARP * ATTENTION_WARPS, AttentionArgs, (attention_whole<T, 4>))

KERNELS_OF(F32, f32)
KERNELS_OF(F16, f16)
KERNELS_OF(BF16, bf16)
KERNEL(best_tokens_f32, WARP * BEST_WARPS, BestArgs, best_tokens)
KERNEL(top_tokens_f32, TOP_THREADS, TopArgs, top_tokens)

#ifdef EMULATED
#define NAMES_OF(K, type)                                                                                              \
    K(place_##type, PlaceArgs)                                                                                         \
    K(embed_##type, EmbedArgs)                                                                                         \
    K(normalise_##type, NormArgs)                                                                                      \
    K(matmul_8_normed_##type, MatmulArgs)                                                                              \
    K(matmul_8_##type, MatmulArgs)                                                                                     \
    K(matmul_8_deep_##type, MatmulArgs)                                                                                \
    K(matmul_16_##type, MatmulArgs)                                                                                    \
    K(matmul_32_##type, MatmulArgs)                                                                                    \
    K(matmul_64x64_##type, MatmulArgs)                                                                                 \
    K(attention_split_##type, AttentionArgs)                                                                           \
    K(attention_8_##type, AttentionArgs)                                                                               \
    K(attention_32_##type, AttentionArgs)
#define KERNELS(K)                                                                                                     \
    NAMES_OF(K, f32)                                                                                                   \
    NAMES_OF(K, f16)                                                                                                   \
    NAMES_OF(K, bf16)                                                                                                  \
    K(best_tokens_f32, BestArgs)                                                                                       \
    K(top_tokens_f32, TopArgs)
EMULATE(KERNELS)
#endif
