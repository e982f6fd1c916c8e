// CUDA C++ as far as the emitter writes it, for a host compiler.
#pragma once
#include "matrices.h"

#define DSL_SIMULATED 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __syncthreads() sim::barrier(__LINE__)
#define __shfl_xor_sync(lanes, value, mask) sim::shuffle_xor(value, sim::all_lanes(lanes, mask), __LINE__)

#define mma_f16(...) sim::multiply_16_8_16<sim::from_f16>(__VA_ARGS__, __LINE__)
#define mma_bf16(...) sim::multiply_16_8_16<sim::from_bf16>(__VA_ARGS__, __LINE__)
#define load_matrices(b, row) sim::load_four(b, row, false, __LINE__)
#define load_transposed(b, row) sim::load_four(b, row, true, __LINE__)

namespace sim {
// The mask of a shuffle, or one that is refused when not all lanes are named.
static inline int all_lanes(unsigned lanes, int mask) { return lanes == 0xffffffffu ? mask : -1; }
struct ThreadNumber { operator unsigned() const { return (unsigned)current; } };
}
static struct { sim::ThreadNumber x; } threadIdx;
static struct { unsigned x; } blockIdx;
static void dsl_enter(int program) { blockIdx.x = (unsigned)program; }

static inline float from_f16(unsigned short h) { return sim::from_f16(h); }
static inline unsigned short to_f16(float f) { return sim::to_f16(f); }
static inline float from_bf16(unsigned short h) { return sim::from_bf16(h); }
static inline unsigned short to_bf16(float f) { return sim::to_bf16(f); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline int __popc(int x) { return __builtin_popcount((unsigned)x); }
static inline int __float_as_int(float f) { int bits; memcpy(&bits, &f, 4); return bits; }
static inline float __int_as_float(int bits) { float f; memcpy(&f, &bits, 4); return f; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
template <class T> static inline T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }
static inline unsigned pair(unsigned short x, unsigned short y) { return x | (unsigned)y << 16; }
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
using sim::fetch;
using sim::keep;
using sim::put;
