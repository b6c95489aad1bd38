// Products of many rows.
#pragma once

#include "outputs.cuh"
#include "product.cuh"

// Many rows: a block of DOWN x ACROSS warps computes 16 * M * DOWN outputs of 8 * R * ACROSS rows, each warp 16 * M of
// 8 * R, one slice after the other. Weights and activations go through shared memory, in STAGES of two steps each. The
// numbers of outputs and rows in memory are multiples of a block's.
constexpr int STAGE_STEPS = 2;
constexpr int STAGES = 3;

template <int M, int R, int DOWN, int ACROSS>
struct Wide {
    static constexpr int OUTPUTS = TILE_OUTPUTS * M * DOWN, ROWS = TILE_ROWS * R * ACROSS;
    static constexpr int THREADS = WARP * DOWN * ACROSS;
    static constexpr int WEIGHTS_BYTES = OUTPUTS * STAGE_STEPS * STEP_BYTES;
    static constexpr int ROWS_BYTES = ROWS * STEP_BYTES;
    static constexpr int STAGE_BYTES = WEIGHTS_BYTES + STAGE_STEPS * ROWS_BYTES;
    // The pitch of rows of sums, chosen to avoid bank conflicts.
    static constexpr int PITCH = OUTPUTS + 4;
    static constexpr int SUMS_BYTES = ROWS * PITCH * (int)sizeof(float);
    static constexpr int SHARED = STAGES * STAGE_BYTES > SUMS_BYTES ? STAGES * STAGE_BYTES : SUMS_BYTES;
};

// Writes four outputs of a row that do not go to adjacent numbers, except values.
template <class T, int INTO>
__device__ __noinline__ void put_apart(const MatmulArgs& a, int row, int output, float4 y) {
    const float sums[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const Destination<T> own(a, output + i);
        if (!own.is_value()) own.template put<INTO>(a, row, sums[i], own.before(a, row));
    }
}

// Four outputs of a product that follow each other.
template <class T>
struct Four {
    Destination<T> first;
    float bias[4];
    // Whether they go to adjacent numbers, whose address is a multiple of four.
    bool are_adjacent;
    // Whether all are values, which come last.
    bool are_values;

    __device__ __forceinline__ Four(const MatmulArgs& a, int output) : first(a, output) {
        const Destination<T> last(a, output + 3);
        are_adjacent = last.is_output && last.column == first.column + 3 && first.column % 4 == 0 &&
                       last.is_cached == first.is_cached && a.into != INTO_LOGITS;
        are_values = first.is_value();
#pragma unroll
        for (int i = 0; i < 4; i++) bias[i] = are_adjacent && a.bias ? a.bias[output + i] : 0.0f;
    }

    template <int INTO>
    __device__ __forceinline__ float4 before(const MatmulArgs& a, int row) const {
        if (INTO != INTO_RESIDUAL || !are_adjacent) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return vector_at((const float*)a.y + (size_t)row * a.y_stride, first.column);
    }

    template <int INTO>
    __device__ __forceinline__ void put(const MatmulArgs& a, int row, const float4& y, const float4& before) const {
        using Bits = typename T::Bits;
        const float sums[4] = {y.x, y.y, y.z, y.w}, old[4] = {before.x, before.y, before.z, before.w};
        float result[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float y = a.bias ? sums[i] + bias[i] : sums[i];
            result[i] = INTO == INTO_RESIDUAL ? old[i] + y : y;
        }
        if (INTO == INTO_ACTIVATED) activate(a.activation, result);
        if (INTO == INTO_RESIDUAL) {
            put_vector<F32>((float*)a.y + (size_t)row * a.y_stride + first.column, result);
            return;
        }
        Bits* to = (Bits*)a.y + (size_t)row * a.y_stride;
        if (first.is_cached) to = (Bits*)read_only(a.pages + row) + (size_t)read_only(a.positions + row) * first.step;
        put_vector<T>(to + first.column, result);
    }
};

// Writes a tile of (rows, outputs) from shared memory, except values; neighbouring threads write neighbouring outputs.
template <class T, class W, int INTO>
__device__ __forceinline__ void put_rows(const MatmulArgs& a, const float* sums, int first_row, int first_output) {
    // Many reads at once, since each takes long.
    constexpr int AT_ONCE = 4 * W::THREADS / W::OUTPUTS, AHEAD = INTO == INTO_RESIDUAL ? 8 : 2;
    const int column = 4 * threadIdx.x % W::OUTPUTS;
    const Four<T> four(a, first_output + column);
    if (four.are_values) return;
    const int rows = min(W::ROWS, a.rows - first_row);
    for (int from = 4 * threadIdx.x / W::OUTPUTS; from < rows; from += AHEAD * AT_ONCE) {
        float4 before[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int row = from + i * AT_ONCE;
            if (row < rows) before[i] = four.template before<INTO>(a, first_row + row);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int row = from + i * AT_ONCE;
            if (row >= rows) break;
            const float4 y = vector_at(sums, row * W::PITCH + column);
            if (four.are_adjacent) {
                four.template put<INTO>(a, first_row + row, y, before[i]);
            } else {
                put_apart<T, INTO>(a, first_row + row, first_output + column, y);
            }
        }
    }
}

// Writes the values of a tile: their positions are neighbours in the cache.
template <class T, class W>
__device__ __forceinline__ void put_values(const MatmulArgs& a, const float* sums, int first_row, int first_output) {
    using Bits = typename T::Bits;
    __shared__ int columns[W::OUTPUTS];
    __shared__ float biases[W::OUTPUTS];
    const int output = threadIdx.x % W::OUTPUTS, row = threadIdx.x % W::ROWS;
    const Destination<T> destination(a, first_output + output);
    columns[output] = destination.is_output && destination.is_value() ? (int)destination.column : -1;
    biases[output] = destination.bias;
    __syncthreads();
    if (first_row + row >= a.rows) return;
    Bits* page = (Bits*)a.pages[first_row + row] + a.positions[first_row + row];
#pragma unroll 4
    for (int i = threadIdx.x / W::ROWS * 4; i < W::OUTPUTS; i += W::THREADS / W::ROWS * 4) {
        const float4 y = vector_at(sums, row * W::PITCH + i);
        const float sums_of_row[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (columns[i + j] >= 0)
                page[columns[i + j]] = T::store(a.bias ? sums_of_row[j] + biases[i + j] : sums_of_row[j]);
    }
}

template <class T, int M, int R, int DOWN, int ACROSS, bool PIPE>
__device__ void matmul_wide(const MatmulArgs& a) {
    using W = Wide<M, R, DOWN, ACROSS>;
    constexpr int STAGE_CHUNKS = STAGE_STEPS * STEP_BYTES / 16, TILE_CHUNKS = TILE_OUTPUTS * STAGE_CHUNKS;
    static_assert(W::THREADS % W::OUTPUTS == 0 && W::THREADS % W::ROWS == 0, "a thread has one output, and one row");
    static_assert(W::THREADS % TILE_CHUNKS == 0, "a thread copies the same part of every tile");
    let_next_start();
    const int g = lane() / 4, t = lane() % 4;
    const int first_row = blockIdx.x * W::ROWS, first_output = blockIdx.y * W::OUTPUTS;
    const int own_output = warp() % DOWN * TILE_OUTPUTS * M, own_row = warp() / DOWN * TILE_ROWS * R;
    const int steps = a.row_bytes / STEP_BYTES;
    char* shared = dynamic_shared();
    // A stage holds for each tile of outputs the fragments of its steps, then for each step 64 bytes of each row. A
    // thread copies 16 bytes at a time.
    const int tile_chunk = threadIdx.x % TILE_CHUNKS, row_chunk = threadIdx.x % STAGE_CHUNKS;
    const int tile = threadIdx.x / TILE_CHUNKS, row = threadIdx.x / STAGE_CHUNKS;
    const char* own_w = a.weight + (size_t)(first_output + tile * TILE_OUTPUTS) * a.row_bytes + 16 * tile_chunk;
    const char* own_x = a.x + (size_t)(first_row + row) * a.row_bytes + 16 * row_chunk;
    char* to_w = shared + 16 * threadIdx.x;
    // Rows of the second step change places in pairs, to avoid bank conflicts.
    const int step_of_row = row_chunk / 4;
    char* to_x = shared + W::WEIGHTS_BYTES + step_of_row * W::ROWS_BYTES + (row ^ step_of_row) * STEP_BYTES +
                 16 * (row_chunk % 4);
    const bool is_second_w = tile_chunk >= TILE_CHUNKS / 2, is_second_x = step_of_row == 1;
    const auto fetch_weights = [&](int step, int stage) {
        if (step >= steps || (step + 1 == steps && is_second_w)) return;
#pragma unroll
        for (int i = 0; i < W::WEIGHTS_BYTES / 16 / W::THREADS; i++)
            copy_ahead(
                to_w + stage * W::STAGE_BYTES + i * 16 * W::THREADS,
                own_w + (size_t)(i * W::THREADS / TILE_CHUNKS * TILE_OUTPUTS) * a.row_bytes + step * TILE_STEP_BYTES);
    };
    const auto fetch_rows = [&](int step, int stage) {
        if (step >= steps || (step + 1 == steps && is_second_x)) return;
#pragma unroll
        for (int i = 0; i < STAGE_STEPS * W::ROWS_BYTES / 16 / W::THREADS; i++)
            copy_ahead(to_x + stage * W::STAGE_BYTES + i * (W::THREADS / STAGE_CHUNKS) * STEP_BYTES,
                       own_x + (size_t)(i * (W::THREADS / STAGE_CHUNKS)) * a.row_bytes + step * STEP_BYTES);
    };
    for (int stage = 0; stage < STAGES - 1; stage++) fetch_weights(stage * STAGE_STEPS, stage);
    wait_for_previous();
    for (int stage = 0; stage < STAGES - 1; stage++) {
        fetch_rows(stage * STAGE_STEPS, stage);
        end_copies();
    }
    float total[M][R][4] = {};
    Product<T, M, R> product;
    const auto end_slice = [&]() {
        float c[M][R][4];
        product.finish(c);
        product.clear();
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) total[m][r][i] += c[m][r][i];
    };
    int slice = 1, slice_end = steps / SLICES;
    // Adds the slices that end before the given step; those without a step would add 0.
    const auto end_slices = [&](int step) {
        if (step != slice_end) return;
        end_slice();
        while (slice_end == step) slice_end = ++slice * steps / SLICES;
    };
    const char* lane_w = shared + own_output * STAGE_STEPS * STEP_BYTES + 16 * lane();
    const char* lane_x = shared + W::WEIGHTS_BYTES + own_row * STEP_BYTES;
    // x of the second step: its lanes read the rows of their neighbours.
    uint4 weights[PIPE ? 2 : 1][M][2];
    typename Product<T, M, R>::Rows rows[PIPE ? 2 : 1];
    const auto read = [&](int stage, int i) {
        const int into = PIPE ? i : 0;
        load_weights<M>(weights[into], lane_w + stage * W::STAGE_BYTES + i * TILE_STEP_BYTES,
                        STAGE_STEPS * TILE_STEP_BYTES);
        rows[into].ask(lane_x + stage * W::STAGE_BYTES + i * W::ROWS_BYTES, STEP_BYTES, i);
    };
    wait_for_copies<STAGES - 2>();
    __syncthreads();
    if (PIPE) read(0, 0);
    int stage = 0, filled = STAGES - 1;
    for (int step = 0; step < steps; step += STAGE_STEPS) {
        const int ahead = step + (STAGES - 1) * STAGE_STEPS;
        fetch_weights(ahead, filled);
        fetch_rows(ahead, filled);
        end_copies();
        filled = filled + 1 == STAGES ? 0 : filled + 1;
        read(stage, PIPE ? 1 : 0);
        end_slices(step);
        product.step(weights[0], rows[0]);
        if (!PIPE) {
            if (step + 1 < steps) {
                read(stage, 1);
                end_slices(step + 1);
                product.step(weights[0], rows[0]);
            }
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        if (PIPE) {
            read(stage, 0);
            if (step + 1 < steps) {
                end_slices(step + 1);
                product.step(weights[PIPE ? 1 : 0], rows[PIPE ? 1 : 0]);
            }
        }
    }
    end_slice();
    float* sums = (float*)shared;
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = own_row + r * TILE_ROWS + 2 * t + i % 2;
                sums[row * W::PITCH + own_output + m * TILE_OUTPUTS + g + i / 2 * 8] = total[m][r][i];
            }
    __syncthreads();
    switch (a.into) {
    case INTO_QKV:
        put_rows<T, W, INTO_QKV>(a, sums, first_row, first_output);
        if (first_output + W::OUTPUTS > 2 * a.heads * a.head_dim) put_values<T, W>(a, sums, first_row, first_output);
        break;
    case INTO_RESIDUAL: put_rows<T, W, INTO_RESIDUAL>(a, sums, first_row, first_output); break;
    case INTO_ACTIVATED: put_rows<T, W, INTO_ACTIVATED>(a, sums, first_row, first_output); break;
    default: put_rows<T, W, INTO_LOGITS>(a, sums, first_row, first_output);
    }
}
