// Token ids to vectors, and weights as files have them to weights as products need them.
#pragma once

#include "product.cuh"

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
template <class T>
__device__ void embed(const EmbedArgs& a) {
    using Bits = typename T::Bits;
    let_next_start();
    wait_for_previous();
    const size_t token = blockIdx.x;
    const Bits *wte = (const Bits*)a.wte, *wpe = (const Bits*)a.wpe;
    const int id = a.ids[token], position = a.positions[token];
    for (int c = threadIdx.x; c < a.width; c += blockDim.x)
        a.x[token * a.stride + c] =
            T::load(wte[weight_at<T>(id, c, a.stride)]) + T::load(wpe[weight_at<T>(position, c, a.stride)]);
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < a.best_count; i += blockDim.x) a.best[i] = 0;
}

enum Stored { STORED_F32, STORED_F16, STORED_BF16 };

struct PlaceArgs {
    const void* from;
    // (outputs, stride) in fragments, with zero padding.
    void* to;
    int outputs, inputs, stride;
    int stored;
    // Whether `from` is (inputs, outputs).
    int transposed;
};

// A matrix as stored in a file -> T, (outputs, inputs), padded and in fragments.
template <class T>
__device__ void place(const PlaceArgs& a) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)a.outputs * a.inputs) return;
    const size_t output = i / a.inputs, input = i % a.inputs;
    const size_t at = a.transposed ? input * a.outputs + output : i;
    float x;
    switch (a.stored) {
    case STORED_F32: x = ((const float*)a.from)[at]; break;
    case STORED_F16: x = f16_to_float(((const uint16_t*)a.from)[at]); break;
    default: x = bf16_to_float(((const uint16_t*)a.from)[at]);
    }
    ((typename T::Bits*)a.to)[weight_at<T>(output, input, a.stride)] = T::store(x);
}
