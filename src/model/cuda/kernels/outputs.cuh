// Products of matrices: their arguments, and where their outputs go.
#pragma once

#include "norm.cuh"

enum Into { INTO_QKV, INTO_RESIDUAL, INTO_ACTIVATED, INTO_LOGITS };
enum Activation { GELU_TANH, GELU_ERF, RELU, SILU, GELU_10, QUICK_GELU, TANH };

struct MatmulArgs {
    // (outputs, inputs) in fragments, `row_bytes` for each output.
    const char* weight;
    // (outputs), or null.
    const float* bias;
    // (rows, inputs) as T, rows of `row_bytes`; f32 with `norm_stride` numbers per row if the kernel applies a norm
    // first.
    const char* x;
    // Where outputs go, in rows of `y_stride` numbers: for INTO_QKV queries (rows, H, padded D) as T, INTO_RESIDUAL
    // added to f32, INTO_ACTIVATED as T, INTO_LOGITS as f32, or nowhere if null. Of all but logits, four are written at
    // a time: their `y_stride` is a multiple of 4.
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

__device__ __forceinline__ unsigned long long larger(unsigned long long a, unsigned long long b) {
    return a > b ? a : b;
}

template <int ACTIVATION>
__device__ __forceinline__ float activated(float x) {
    switch (ACTIVATION) {
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u).
    case GELU_TANH: return times_sigmoid(x, 1.5957691216057308f * (x + 0.044715f * x * x * x));
    case GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case RELU: return x < 0.0f ? 0.0f : x;
    case GELU_10: {
        // Comparisons, because fminf and fmaxf would hide NaN.
        const float y = 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
        return y < -10.0f ? -10.0f : y > 10.0f ? 10.0f : y;
    }
    case QUICK_GELU: return times_sigmoid(x, 1.702f * x);
    case TANH: return tanhf(x);
    default: return times_sigmoid(x, x);
    }
}

// Side by side: each depends on itself alone.
template <int N>
__device__ __forceinline__ void activate(int activation, float (&x)[N]) {
#define ACTIVATE(kind)                                                                                                 \
    case kind:                                                                                                         \
        for (int i = 0; i < N; i++) x[i] = activated<kind>(x[i]);                                                      \
        break;
    switch (activation) {
        ACTIVATE(GELU_TANH)
        ACTIVATE(GELU_ERF)
        ACTIVATE(RELU)
        ACTIVATE(GELU_10)
        ACTIVATE(QUICK_GELU)
        ACTIVATE(TANH)
        ACTIVATE(SILU)
    }
#undef ACTIVATE
}

// Where one output of a product goes, for any row.
template <class T>
struct Destination {
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

    // INTO_RESIDUAL: what the output is added to, so that it can be read in advance.
    __device__ __forceinline__ float before(const MatmulArgs& a, int row) const {
        if (a.into != INTO_RESIDUAL || row >= a.rows || !is_output) return 0.0f;
        return ((const float*)a.y)[(size_t)row * a.y_stride + column];
    }

    // Whether it is a number of a value, whose neighbour in memory is the next position's.
    __device__ __forceinline__ bool is_value() const { return step == 1; }

    // INTO is -1 where only `a` knows it.
    template <int INTO = -1>
    __device__ __forceinline__ void put(const MatmulArgs& a, int row, float y, float before) const {
        using Bits = typename T::Bits;
        if (row >= a.rows || !is_output) return;
        y = a.bias ? y + bias : y;
        const size_t at = (size_t)row * a.y_stride + column;
        switch (INTO < 0 ? a.into : INTO) {
        case INTO_QKV:
            if (is_cached) {
                ((Bits*)read_only(a.pages + row))[column + (size_t)read_only(a.positions + row) * step] = T::store(y);
            } else {
                ((Bits*)a.y)[at] = T::store(y);
            }
            break;
        case INTO_RESIDUAL: ((float*)a.y)[at] = before + y; break;
        case INTO_ACTIVATED: {
            float result[1] = {y};
            activate(a.activation, result);
            ((Bits*)a.y)[at] = T::store(result[0]);
            break;
        }
        default:
            if (a.y) ((float*)a.y)[at] = y;
        }
    }
};
