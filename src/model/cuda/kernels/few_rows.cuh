// Products of few rows.
#pragma once

#include "outputs.cuh"
#include "product.cuh"

// The pitch of rows of sums in shared memory, chosen to avoid bank conflicts.
constexpr int SUMS_PITCH = 20;

// Few rows: a block computes 16 outputs of up to 8 * R rows at a time, each warp one slice of the inputs. AHEAD steps
// of weights are requested before the kernel waits for its activations, and before it finishes the previous outputs.
// With NORM, the block first norms its own copy of the rows in shared memory.
template <class T, int R, int AHEAD, bool NORM>
__device__ void matmul_narrow(const MatmulArgs& a) {
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
        w = a.weight + (size_t)tile * TILE_OUTPUTS * a.row_bytes + 16 * lane();
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (begin + i < end) load_weights<1>(ahead[i], w + (begin + i) * TILE_STEP_BYTES, 0);
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
                    if (next < end) load_weights<1>(ahead[i], w + next * TILE_STEP_BYTES, 0);
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
            destination.put(a, first_row + row, y, destination.before(a, first_row + row));
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
