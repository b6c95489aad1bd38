// The network's operations on an NVIDIA GPU.
//
// Every output number is one fixed chain of operations, whatever else is computed beside it: a product is split into SLICES
// along its inputs, each slice is summed in one order, and slices are added in order; attention is split into blocks of
// positions, and blocks are mixed in order. So a row gives the same bits alone and in a batch, read at once or token by
// token. Which kernel of several computes a product (few rows or many) changes who works on it and not the chain.
//
// Compiled without contraction (-fmad=false): a multiply-add is where it says fmaf.
//
// Shapes: N new tokens of all rows, C the model's width, H heads, D a head's width, V the vocabulary. Rows of matrices are
// padded with zeros to PADDING numbers, counts of rows to whole tiles.
//
// With -DEMULATED the same file is C++ for the host, for tests without a GPU (emulator.hpp).

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

// A kernel may start while the one before it still runs (programmatic dependent launch). What that one writes is read only
// after `wait_for_previous`.
__device__ __forceinline__ void wait_for_previous() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start.
__device__ __forceinline__ void let_next_start() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
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
// What a warp multiplies at a time: 64 bytes of each row, 16 by each of four lanes.
constexpr int STEP_BYTES = 64;
// Outputs of a product are computed 16 at a time, rows 8 at a time: the shape of the tensor cores' m16n8k16.
constexpr int TILE_OUTPUTS = 16;
constexpr int TILE_ROWS = 8;
// Parts into which the inputs of a product are split.
constexpr int SLICES = 8;
// Positions in a block of the cache.
constexpr int BLOCK_POSITIONS = 64;

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp() { return threadIdx.x / WARP; }

__device__ __forceinline__ float sum_of_warp(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffff, x, distance);
    return x;
}

// ---- Products ----

// The part of y = W x that a warp has under way: 16 * M outputs of 8 * R rows. Lane 4g + t reads its 16 bytes of each
// step from outputs g and g + 8. In the end it holds of each tile outputs g, g, g + 8, g + 8 of rows 2t, 2t + 1, 2t, 2t + 1.
//
// For 16-bit numbers a step is two products of the tensor cores, to which any order of the inputs is right, as long as
// weights and activations have the same.
template <class T, int M, int R> struct Product {
    float sum[M][R][4];

    __device__ __forceinline__ Product() {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++) sum[m][r][0] = sum[m][r][1] = sum[m][r][2] = sum[m][r][3] = 0.0f;
    }

    // `x` is where this step's bytes of the first row lie, rows are `stride` bytes apart.
    __device__ __forceinline__ void step(const uint4 (&w)[M][2], const char* x, int stride) {
        const int g = lane() / 4, t = lane() % 4;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const uint4 v = *(const uint4*)(x + (r * TILE_ROWS + g) * stride + 16 * t);
#pragma unroll
            for (int m = 0; m < M; m++) {
                T::mma(sum[m][r], {w[m][0].x, w[m][1].x, w[m][0].y, w[m][1].y}, {v.x, v.y});
                T::mma(sum[m][r], {w[m][0].z, w[m][1].z, w[m][0].w, w[m][1].w}, {v.z, v.w});
            }
        }
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

// A lane's bytes of a step: `w` is where they lie in output g of the first tile, outputs are `stride` bytes apart.
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

// One row, by one warp: x (C) -> T (C), as torch.nn.LayerNorm; x itself if there is no weight. `y` and `exact`, which takes
// the result in f32, may be null.
template <class T>
__device__ __forceinline__ void normalise_row(const Norm& norm, const float* x, typename T::Bits* y, float* exact) {
    if (!norm.weight) {
        for (int c = lane(); c < norm.width; c += WARP) {
            if (y) y[c] = T::store(x[c]);
            if (exact) exact[c] = x[c];
        }
        return;
    }
    float sum = 0.0f;
    for (int c = lane(); c < norm.width; c += WARP) sum += x[c];
    const float mean = sum_of_warp(sum) / (float)norm.width;
    float squares = 0.0f;
    for (int c = lane(); c < norm.width; c += WARP) {
        const float apart = x[c] - mean;
        squares = fmaf(apart, apart, squares);
    }
    const float scale = 1.0f / sqrtf(sum_of_warp(squares) / (float)norm.width + norm.epsilon);
    for (int c = lane(); c < norm.width; c += WARP) {
        const float normed = fmaf((x[c] - mean) * scale, norm.weight[c], norm.bias[c]);
        if (y) y[c] = T::store(normed);
        if (exact) exact[c] = normed;
    }
}

struct NormArgs {
    const float* x;
    // Which rows of x; null: all in order.
    const unsigned* rows;
    // Normed rows as T, and as f32; either may be null.
    void* y;
    float* exact;
    Norm norm;
    // Numbers from one row to the next.
    int x_stride, y_stride, exact_stride;
    int count;
};

constexpr int NORM_WARPS = 4;

template <class T> __device__ void normalise(const NormArgs& a) {
    wait_for_previous();
    let_next_start();
    const int row = blockIdx.x * NORM_WARPS + warp();
    if (row >= a.count) return;
    const size_t from = a.rows ? a.rows[row] : row;
    typename T::Bits* y = a.y ? (typename T::Bits*)a.y + (size_t)row * a.y_stride : nullptr;
    float* exact = a.exact ? a.exact + (size_t)row * a.exact_stride : nullptr;
    normalise_row<T>(a.norm, a.x + from * a.x_stride, y, exact);
}

// ---- Matrix products ----

enum Into { INTO_QKV, INTO_RESIDUAL, INTO_ACTIVATED, INTO_LOGITS };
enum Activation { GELU_TANH, GELU_ERF, RELU, SILU };

struct MatmulArgs {
    // (outputs, inputs), rows of `row_bytes`.
    const char* weight;
    // (outputs), or null.
    const float* bias;
    // (rows, inputs) as T, rows of `row_bytes`; f32 of `norm_stride` numbers a row where the kernel applies a norm first.
    const char* x;
    // Where outputs go, rows of `y_stride` numbers: INTO_QKV queries (rows, H, padded D) as T, INTO_RESIDUAL added to f32,
    // INTO_ACTIVATED as T, INTO_LOGITS as f32.
    void* y;
    // INTO_QKV: the block of the cache that takes each row, and its position there.
    const unsigned long long* blocks;
    const unsigned* positions;
    Norm norm;
    int norm_stride;
    int row_bytes;
    int rows, outputs;
    int y_stride;
    int into, activation;
    // INTO_QKV: where this layer's keys and values begin in a block, in numbers.
    int keys_at, values_at;
    int heads, head_dim;
    // Padded widths of a head's keys and values.
    int key_dim, value_dim;
};

__device__ __forceinline__ float activate(int activation, float x) {
    switch (activation) {
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case RELU: return x < 0.0f ? 0.0f : x;
    default: return x / (1.0f + expf(-x));
    }
}

template <class T> __device__ __forceinline__ void put(const MatmulArgs& a, int row, int output, float y) {
    using Bits = typename T::Bits;
    if (row >= a.rows || output >= a.outputs) return;
    if (a.bias) y += a.bias[output];
    const size_t at = (size_t)row * a.y_stride + output;
    switch (a.into) {
    case INTO_QKV: {
        const int width = a.heads * a.head_dim;
        const int part = output / width, head = output % width / a.head_dim, d = output % a.head_dim;
        if (part == 0) {
            ((Bits*)a.y)[(size_t)row * a.y_stride + head * a.key_dim + d] = T::store(y);
            break;
        }
        Bits* block = (Bits*)a.blocks[row];
        const int position = a.positions[row];
        if (part == 1) {
            block[a.keys_at + (size_t)(head * BLOCK_POSITIONS + position) * a.key_dim + d] = T::store(y);
        } else {
            block[a.values_at + (size_t)(head * a.value_dim + d) * BLOCK_POSITIONS + position] = T::store(y);
        }
        break;
    }
    case INTO_RESIDUAL: ((float*)a.y)[at] += y; break;
    case INTO_ACTIVATED: ((Bits*)a.y)[at] = T::store(activate(a.activation, y)); break;
    default: ((float*)a.y)[at] = y;
    }
}

// Steps of weights that a warp has asked for before it needs them.
constexpr int AHEAD = 4;
// Between the rows of sums in shared memory: without bank conflicts.
constexpr int SUMS_PITCH = 20;

// Few rows: a block computes 16 outputs of up to 8 * R rows, each warp a slice of the inputs. Weights are asked for before
// the kernel waits for its activations. With NORM the layer norm comes first, for the block's own rows in shared memory.
template <class T, int R, bool NORM> __device__ void matmul_narrow(const MatmulArgs& a) {
    __shared__ float sums[SLICES][TILE_ROWS * R * SUMS_PITCH];
    const int g = lane() / 4, t = lane() % 4;
    const int first_row = blockIdx.x * TILE_ROWS * R, first_output = blockIdx.y * TILE_OUTPUTS;
    const int steps = a.row_bytes / STEP_BYTES;
    const int begin = warp() * steps / SLICES, end = (warp() + 1) * steps / SLICES;
    const char* w = a.weight + (size_t)(first_output + g) * a.row_bytes + 16 * t;
    uint4 ahead[AHEAD][1][2];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (begin + i < end) load_weights<1>(ahead[i], w + (size_t)(begin + i) * STEP_BYTES, a.row_bytes);
    wait_for_previous();
    let_next_start();
    const char* x = a.x + (size_t)first_row * a.row_bytes;
    int stride = a.row_bytes;
    if (NORM) {
        char* shared = dynamic_shared();
        // Rows begin 16 bytes apart in the banks.
        stride = a.row_bytes + 16;
        for (int row = warp(); row < TILE_ROWS * R; row += SLICES) {
            typename T::Bits* normed = (typename T::Bits*)(shared + row * stride);
            const int numbers = a.row_bytes / (int)sizeof(typename T::Bits);
            const int filled = first_row + row < a.rows ? a.norm.width : 0;
            for (int c = filled + lane(); c < numbers; c += WARP) normed[c] = T::store(0.0f);
            if (filled) {
                normalise_row<T>(a.norm, (const float*)a.x + (size_t)(first_row + row) * a.norm_stride, normed, nullptr);
            }
        }
        __syncthreads();
        x = shared;
    }
    Product<T, 1, R> product;
    for (int step = begin; step < end; step += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (step + i < end) {
                product.step(ahead[i], x + (step + i) * STEP_BYTES, stride);
                const int next = step + i + AHEAD;
                if (next < end) load_weights<1>(ahead[i], w + (size_t)next * STEP_BYTES, a.row_bytes);
            }
        }
    }
    float c[1][R][4];
    product.finish(c);
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = r * TILE_ROWS + 2 * t + i % 2, output = g + i / 2 * 8;
            sums[warp()][row * SUMS_PITCH + output] = c[0][r][i];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE_OUTPUTS * TILE_ROWS * R; i += WARP * SLICES) {
        const int row = i / TILE_OUTPUTS, output = i % TILE_OUTPUTS;
        float y = 0.0f;
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++) y += sums[slice][row * SUMS_PITCH + output];
        put<T>(a, first_row + row, first_output + output, y);
    }
}

constexpr int WIDE_WARPS = 4;

// Many rows: each warp computes 32 outputs of 8 * R rows, one slice after the other.
template <class T, int R> __device__ void matmul_wide(const MatmulArgs& a) {
    constexpr int M = 2;
    wait_for_previous();
    let_next_start();
    const int g = lane() / 4, t = lane() % 4;
    const int first_row = (blockIdx.x * 2 + warp() / 2) * TILE_ROWS * R;
    const int first_output = (blockIdx.y * 2 + warp() % 2) * TILE_OUTPUTS * M;
    if (first_row >= a.rows) return;
    const int steps = a.row_bytes / STEP_BYTES;
    const char* w = a.weight + (size_t)(first_output + g) * a.row_bytes + 16 * t;
    const char* x = a.x + (size_t)first_row * a.row_bytes;
    float total[M][R][4] = {};
    for (int slice = 0; slice < SLICES; slice++) {
        const int begin = slice * steps / SLICES, end = (slice + 1) * steps / SLICES;
        Product<T, M, R> product;
#pragma unroll 2
        for (int step = begin; step < end; step++) {
            uint4 weights[M][2];
            load_weights<M>(weights, w + (size_t)step * STEP_BYTES, a.row_bytes);
            product.step(weights, x + (size_t)step * STEP_BYTES, a.row_bytes);
        }
        float c[M][R][4];
        product.finish(c);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[m][r][i] += c[m][r][i];
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first_row + r * TILE_ROWS + 2 * t + i % 2;
                put<T>(a, row, first_output + m * TILE_OUTPUTS + g + i / 2 * 8, total[m][r][i]);
            }
}

// ---- Attention ----

// New positions of one row that are run together: at most 8 * R queries.
struct Queries {
    // The first token, and how many.
    int first, count;
    // The first one's position in its row.
    int position;
    // Where the row's blocks begin in the table.
    int table;
    // Where probabilities go: those of the first query in head 0, and how far on the next query's and the next head's are.
    int weights_at, weights_stride, weights_head;
    int unused;
};

struct AttentionArgs {
    // (N, H, padded D) as T.
    const char* q;
    // Blocks of the cache by row.
    const unsigned long long* blocks;
    const Queries* queries;
    // (N, C) as T.
    void* y;
    // For each token, head and block: (padded D) mixed values, and the largest score and the sum that go with them.
    float* partial;
    float2* totals;
    // How many blocks of a (tile, head) are done; 0 before and after.
    unsigned* done;
    // Probabilities, or null.
    float* weights;
    float scale;
    int q_stride, y_stride;
    // The most blocks that a row has.
    int most_blocks;
    int keys_at, values_at;
    int heads, head_dim;
    int key_dim, value_dim;
};

constexpr int ATTENTION_WARPS = 4;

// A thread block mixes the values of one block of positions for one head and one tile of queries; whichever of them is
// last mixes the blocks. FlashAttention's arithmetic (Dao 2023, arXiv 2307.08691), split along positions.
template <class T, int R> __device__ void attention(const AttentionArgs& a) {
    using Bits = typename T::Bits;
    constexpr int QUERIES = TILE_ROWS * R;
    constexpr int PITCH = BLOCK_POSITIONS + 16 / (int)sizeof(Bits);
    __shared__ __align__(16) Bits probabilities[QUERIES * PITCH];
    __shared__ float largest[ATTENTION_WARPS][QUERIES];
    __shared__ float sums[ATTENTION_WARPS][QUERIES];
    __shared__ bool is_last;
    wait_for_previous();
    let_next_start();
    const Queries queries = a.queries[blockIdx.x];
    const int head = blockIdx.y, base = blockIdx.z * BLOCK_POSITIONS;
    const int last_position = queries.position + queries.count - 1;
    if (base > last_position) return;
    const int g = lane() / 4, t = lane() % 4;
    const Bits* block = (const Bits*)a.blocks[queries.table + blockIdx.z];

    // Scores: each warp of 16 positions.
    const char* keys = (const char*)(block + a.keys_at + (size_t)head * BLOCK_POSITIONS * a.key_dim);
    const char* q = a.q + ((size_t)queries.first * a.q_stride + head * a.key_dim) * sizeof(Bits);
    const int key_bytes = a.key_dim * sizeof(Bits);
    const char* key = keys + (size_t)(warp() * TILE_OUTPUTS + g) * key_bytes + 16 * t;
    Product<T, 1, R> product;
    for (int step = 0; step < key_bytes / STEP_BYTES; step++) {
        uint4 weights[1][2];
        load_weights<1>(weights, key + step * STEP_BYTES, key_bytes);
        product.step(weights, q + step * STEP_BYTES, a.q_stride * sizeof(Bits));
    }
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
    // The largest of each query, over the lanes with its column and over the warps.
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = fmaxf(s[0][r][i], s[0][r][i + 2]);
            for (int distance = 4; distance < WARP; distance *= 2)
                most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, distance));
            if (g == 0) largest[warp()][r * TILE_ROWS + 2 * t + i] = most;
        }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int query = r * TILE_ROWS + 2 * t + i;
            float most = largest[0][query];
            for (int w = 1; w < ATTENTION_WARPS; w++) most = fmaxf(most, largest[w][query]);
            float sum = 0.0f;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float score = s[0][r][i + 2 * half];
                const int position = warp() * TILE_OUTPUTS + g + half * 8;
                // NaN stays NaN.
                const float p = score == -INFINITY_F32 ? 0.0f : expf(score - most);
                probabilities[query * PITCH + position] = T::store(p);
                if (a.weights && query < queries.count && base + position <= queries.position + query) {
                    a.weights[queries.weights_at + (size_t)head * queries.weights_head +
                              (size_t)query * queries.weights_stride + base + position] = p;
                }
                sum += p;
            }
            for (int distance = 4; distance < WARP; distance *= 2)
                sum += __shfl_xor_sync(0xffffffff, sum, distance);
            if (g == 0) sums[warp()][query] = sum;
        }
    __syncthreads();
    const size_t at = ((size_t)queries.first * a.heads + head) * a.most_blocks + blockIdx.z;
    const size_t query_stride = (size_t)a.heads * a.most_blocks;
    for (int query = threadIdx.x; query < queries.count; query += WARP * ATTENTION_WARPS) {
        float most = largest[0][query], sum = sums[0][query];
        for (int w = 1; w < ATTENTION_WARPS; w++) {
            most = fmaxf(most, largest[w][query]);
            sum += sums[w][query];
        }
        a.totals[at + query * query_stride] = make_float2(most, sum);
    }

    // Mixed values: each warp of 16 numbers of a head.
    const char* values = (const char*)(block + a.values_at + (size_t)head * a.value_dim * BLOCK_POSITIONS);
    constexpr int VALUE_BYTES = BLOCK_POSITIONS * sizeof(Bits);
    for (int d = warp() * TILE_OUTPUTS; d < a.value_dim; d += ATTENTION_WARPS * TILE_OUTPUTS) {
        const char* value = values + (size_t)(d + g) * VALUE_BYTES + 16 * t;
        Product<T, 1, R> mix;
#pragma unroll
        for (int step = 0; step < VALUE_BYTES / STEP_BYTES; step++) {
            uint4 weights[1][2];
            load_weights<1>(weights, value + step * STEP_BYTES, VALUE_BYTES);
            mix.step(weights, (const char*)probabilities + step * STEP_BYTES, PITCH * sizeof(Bits));
        }
        float c[1][R][4];
        mix.finish(c);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int query = r * TILE_ROWS + 2 * t + i % 2;
                if (query < queries.count)
                    a.partial[(at + query * query_stride) * a.value_dim + d + g + i / 2 * 8] = c[0][r][i];
            }
    }

    // Whoever is last mixes the blocks.
    __threadfence();
    __syncthreads();
    unsigned* done = a.done + blockIdx.x * a.heads + head;
    if (threadIdx.x == 0) is_last = atomicAdd(done, 1u) == (unsigned)(last_position / BLOCK_POSITIONS);
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *done = 0;
    const size_t first = ((size_t)queries.first * a.heads + head) * a.most_blocks;
    for (int i = threadIdx.x; i < queries.count * a.head_dim; i += WARP * ATTENTION_WARPS) {
        const int query = i / a.head_dim, d = i % a.head_dim;
        const int blocks = (queries.position + query) / BLOCK_POSITIONS + 1;
        const float2* totals = a.totals + first + query * query_stride;
        const float* partial = a.partial + (first + query * query_stride) * a.value_dim + d;
        float most = -INFINITY_F32;
        for (int b = 0; b < blocks; b++) most = fmaxf(most, read_of_other_blocks(totals + b).x);
        float mixed = 0.0f, sum = 0.0f;
        for (int b = 0; b < blocks; b++) {
            const float2 total = read_of_other_blocks(totals + b);
            const float factor = expf(total.x - most);
            sum = fmaf(factor, total.y, sum);
            mixed = fmaf(factor, read_of_other_blocks(partial + (size_t)b * a.value_dim), mixed);
        }
        ((Bits*)a.y)[(size_t)(queries.first + query) * a.y_stride + head * a.head_dim + d] = T::store(mixed / sum);
    }
    if (!a.weights) return;
    for (int query = warp(); query < queries.count; query += ATTENTION_WARPS) {
        const int position = queries.position + query;
        const float2* totals = a.totals + first + query * query_stride;
        float most = -INFINITY_F32, sum = 0.0f;
        for (int b = 0; b <= position / BLOCK_POSITIONS; b++) most = fmaxf(most, read_of_other_blocks(totals + b).x);
        for (int b = 0; b <= position / BLOCK_POSITIONS; b++) {
            const float2 total = read_of_other_blocks(totals + b);
            sum = fmaf(expf(total.x - most), total.y, sum);
        }
        float* weights = a.weights + queries.weights_at + (size_t)head * queries.weights_head +
                         (size_t)query * queries.weights_stride;
        for (int i = lane(); i <= position; i += WARP) {
            const float factor = expf(read_of_other_blocks(totals + i / BLOCK_POSITIONS).x - most);
            weights[i] = read_of_other_blocks(weights + i) * factor / sum;
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
    int stride, width;
};

// Token plus position embedding of one token: (N, C) in f32.
template <class T> __device__ void embed(const EmbedArgs& a) {
    using Bits = typename T::Bits;
    wait_for_previous();
    let_next_start();
    const size_t token = blockIdx.x;
    const Bits* wte = (const Bits*)a.wte + (size_t)a.ids[token] * a.stride;
    const Bits* wpe = (const Bits*)a.wpe + (size_t)a.positions[token] * a.stride;
    for (int c = threadIdx.x; c < a.width; c += blockDim.x) a.x[token * a.stride + c] = T::load(wte[c]) + T::load(wpe[c]);
}

struct BestArgs {
    // (rows, V).
    const float* logits;
    // (rows).
    unsigned* best;
    int vocabulary;
};

constexpr int BEST_WARPS = 32;
// No token: a logit is not a finite number.
constexpr unsigned NONE = 0xffffffff;

// The first id with the largest logit of each row.
__device__ void best_tokens(const BestArgs& a) {
    __shared__ float values[BEST_WARPS];
    __shared__ unsigned ids[BEST_WARPS];
    wait_for_previous();
    let_next_start();
    const float* logits = a.logits + (size_t)blockIdx.x * a.vocabulary;
    float best = -INFINITY_F32;
    unsigned id = NONE;
    bool finite = true;
    for (int i = threadIdx.x; i < a.vocabulary; i += WARP * BEST_WARPS) {
        const float x = logits[i];
        finite = finite && isfinite(x);
        if (x > best) {
            best = x;
            id = i;
        }
    }
    // What is not finite beats everything.
    if (!finite) {
        best = INFINITY_F32;
        id = NONE;
    }
    const auto merge = [&](float other, unsigned other_id) {
        if (other > best || (other == best && other_id < id && best != INFINITY_F32)) {
            best = other;
            id = other_id;
        }
    };
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xffffffff, best, distance);
        merge(other, __shfl_xor_sync(0xffffffff, id, distance));
    }
    if (lane() == 0) {
        values[warp()] = best;
        ids[warp()] = id;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < BEST_WARPS; w++) merge(values[w], ids[w]);
    a.best[blockIdx.x] = id;
}

// ---- Loading ----

enum Stored { STORED_F32, STORED_F16, STORED_BF16 };

struct PlaceArgs {
    const void* from;
    // (outputs, stride), zeros beyond what is there.
    void* to;
    int outputs, inputs, stride;
    int stored;
    // Whether `from` is (inputs, outputs).
    int transposed;
};

// A matrix as a file has it -> T, (outputs, inputs), padded.
template <class T> __device__ void place(const PlaceArgs& a) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)a.outputs * a.inputs) return;
    // Neighbours write side by side.
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
    KERNEL(matmul_8_normed_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 1, true>))                             \
    KERNEL(matmul_8_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 1, false>))                                   \
    KERNEL(matmul_16_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 2, false>))                                  \
    KERNEL(matmul_32_##type, WARP * SLICES, MatmulArgs, (matmul_narrow<T, 4, false>))                                  \
    KERNEL(matmul_wide_##type, WARP * WIDE_WARPS, MatmulArgs, (matmul_wide<T, sizeof(T::Bits) == 4 ? 2 : 4>))          \
    KERNEL(attention_8_##type, WARP * ATTENTION_WARPS, AttentionArgs, (attention<T, 1>))                               \
    KERNEL(attention_32_##type, WARP * ATTENTION_WARPS, AttentionArgs, (attention<T, 4>))

KERNELS_OF(F32, f32)
KERNELS_OF(F16, f16)
KERNELS_OF(BF16, bf16)
KERNEL(best_tokens_f32, WARP * BEST_WARPS, BestArgs, best_tokens)

#ifdef EMULATED
#define NAMES_OF(K, type)                                                                                              \
    K(place_##type, PlaceArgs)                                                                                         \
    K(embed_##type, EmbedArgs)                                                                                         \
    K(normalise_##type, NormArgs)                                                                                      \
    K(matmul_8_normed_##type, MatmulArgs)                                                                              \
    K(matmul_8_##type, MatmulArgs)                                                                                     \
    K(matmul_16_##type, MatmulArgs)                                                                                    \
    K(matmul_32_##type, MatmulArgs)                                                                                    \
    K(matmul_wide_##type, MatmulArgs)                                                                                  \
    K(attention_8_##type, AttentionArgs)                                                                               \
    K(attention_32_##type, AttentionArgs)
#define KERNELS(K) NAMES_OF(K, f32) NAMES_OF(K, f16) NAMES_OF(K, bf16) K(best_tokens_f32, BestArgs)
EMULATE(KERNELS)
#endif
