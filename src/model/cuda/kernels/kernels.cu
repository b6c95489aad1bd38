// The network's operations on an NVIDIA GPU.
//
// Every output number is one fixed chain of operations, whatever else is computed beside it: a product is split into
// SLICES along its inputs, each slice is summed in one order, and slices are added in order; attention is split into
// pages, and pages are mixed in order. So a row gives the same bits alone and in a batch, read at once or token by
// token. Which kernel computes a product (for few rows or many) changes who does the work, not the chain.
//
// Compiled without contraction (-fmad=false): only an explicit fmaf is a fused multiply-add.
//
// Shapes: N new tokens of all rows, C the model's width, H heads, D a head's width, V the vocabulary. Rows of matrices
// are zero-padded to multiples of PADDING numbers, numbers of rows to whole tiles. Matrices of weights are stored in
// fragments (`weight_at`).
//
// With -DEMULATED, the same files are C++ for the host, for tests without a GPU (emulator.hpp).

#include "attention_prompt.cuh"
#include "best_tokens.cuh"
#include "embed.cuh"
#include "few_rows.cuh"
#include "many_rows.cuh"

static_assert(Wide<2, 4, 2, 2>::SHARED == 48 << 10 && Wide<4, 4, 2, 2>::SHARED == 72 << 10,
              "what kernel.rs launches matmul_64x64 and matmul_128x64 with");

#define KERNEL(name, threads, Args, body)                                                                              \
    extern "C" __global__ void __launch_bounds__(threads) name(GRID_CONSTANT const Args a) { body(a); }

#define KERNELS_OF(T, type)                                                                                            \
    KERNEL(place_##type, 256, PlaceArgs, place<T>)                                                                     \
    KERNEL(embed_##type, 256, EmbedArgs, embed<T>)                                                                     \
    KERNEL(normalise_##type, WARP* NORM_WARPS, NormArgs, normalise<T>)                                                 \
    KERNEL(matmul_8_normed_##type, WARP* SLICES, MatmulArgs, (matmul_narrow<T, 1, 4, true>))                           \
    KERNEL(matmul_8_##type, WARP* SLICES, MatmulArgs, (matmul_narrow<T, 1, 4, false>))                                 \
    KERNEL(matmul_8_deep_##type, WARP* SLICES, MatmulArgs, (matmul_narrow<T, 1, 12, false>))                           \
    KERNEL(matmul_16_##type, WARP* SLICES, MatmulArgs, (matmul_narrow<T, 2, 4, false>))                                \
    KERNEL(matmul_32_##type, WARP* SLICES, MatmulArgs, (matmul_narrow<T, 4, 4, false>))                                \
    KERNEL(matmul_64x64_##type, 128, MatmulArgs, (matmul_wide<T, 2, 4, 2, 2, false>))                                  \
    KERNEL(attention_split_##type, WARP* ATTENTION_WARPS, AttentionArgs, attention_split<T>)                           \
    KERNEL(attention_8_##type, WARP* ATTENTION_WARPS, AttentionArgs, attention_whole<T>)                               \
    KERNEL(attention_prompt_##type, WARP* ATTENTION_WARPS, AttentionArgs,                                              \
           (attention_prompt < T, sizeof(T::Bits) == 4 ? 1 : 2 >))

KERNELS_OF(F32, f32)
KERNELS_OF(F16, f16)
KERNELS_OF(BF16, bf16)
KERNEL(matmul_128x64_f16, 128, MatmulArgs, (matmul_wide<F16, 4, 4, 2, 2, true>))
KERNEL(matmul_128x64_bf16, 128, MatmulArgs, (matmul_wide<BF16, 4, 4, 2, 2, true>))
KERNEL(best_tokens_f32, WARP* BEST_WARPS, BestArgs, best_tokens)
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
    K(attention_prompt_##type, AttentionArgs)
#define KERNELS(K)                                                                                                     \
    NAMES_OF(K, f32)                                                                                                   \
    NAMES_OF(K, f16)                                                                                                   \
    NAMES_OF(K, bf16)                                                                                                  \
    K(matmul_128x64_f16, MatmulArgs)                                                                                   \
    K(matmul_128x64_bf16, MatmulArgs)                                                                                  \
    K(best_tokens_f32, BestArgs)                                                                                       \
    K(top_tokens_f32, TopArgs)
EMULATE(KERNELS)
#endif
