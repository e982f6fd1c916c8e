// Matrix units: what each lane holds of which matrix, by NVIDIA's PTX ISA and by the map that MLX relies on.
#pragma once
#include "shared.h"

namespace sim {

enum { MULTIPLY_16_8_16 = 64, MULTIPLY_8_8, LOAD_MATRICES, LOAD_TRANSPOSED };

// mma.m16n8k16: lane (g, t) = (lane / 4, lane % 4) holds, two to a register,
//   A[g][2t], A[g + 8][2t], A[g][2t + 8], A[g + 8][2t + 8];  B[2t][g], B[2t + 8][g];
// and as floats C[g][2t], C[g][2t + 1], C[g + 8][2t], C[g + 8][2t + 1].
template <float (*WIDE)(uint16_t)>
static void multiply_16_8_16(float& c0, float& c1, float& c2, float& c3, const unsigned (&a)[4], unsigned b0,
                             unsigned b1, int line) {
  unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  int turn = meet(mine, sizeof mine, line, MULTIPLY_16_8_16);
  auto element = [&](int lane, int number, int half) {
    unsigned word;
    memcpy(&word, taken(turn, lane) + 4 * number, 4);
    return WIDE((uint16_t)(word >> (16 * half)));
  };
  int g = (current & 31) / 4, t = current & 3;
  float* sums[4] = {&c0, &c1, &c2, &c3};
  for (int s = 0; s < 4; ++s) {
    int row = g + s / 2 * 8, column = 2 * t + s % 2;
    for (int k = 0; k < 16; ++k) {
      int place = k % 8 / 2;
      *sums[s] += element(row % 8 * 4 + place, row / 8 + k / 8 * 2, k % 2) * element(column * 4 + place, 4 + k / 8, k % 2);
    }
  }
}

// ldmatrix.x4: lanes 8 m .. 8 m + 7 name the rows of matrix m; lane (g, t) gets [g][2t] and [g][2t + 1] of each,
// or transposed [2t][g] and [2t + 1][g].
template <class P> static void load_four(unsigned (&b)[4], P row, bool transposed, int line) {
  uint16_t mine[8];
  if (row.first % 8) unaligned("of shared memory", 16);
  for (int e = 0; e < 8; ++e) mine[e] = row[e];
  int turn = meet(mine, sizeof mine, line, transposed ? LOAD_TRANSPOSED : LOAD_MATRICES);
  int g = (current & 31) / 4, t = current & 3;
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      int r = transposed ? 2 * t + e : g, c = transposed ? g : 2 * t + e;
      memcpy(pair + e, taken(turn, 8 * m + r) + 2 * c, 2);
    }
    b[m] = pair[0] | (unsigned)pair[1] << 16;
  }
}

// simdgroup_matrix 8 x 8: the lane's bits 1, 2, 4 are the row, its bits 0, 3 the column's 2 and 4, the element its 1.
static inline int simd_lane(int row, int column) {
  return (column >> 1 & 1) | (row & 3) << 1 | (column >> 2) << 3 | (row >> 2) << 4;
}
template <class M> static inline float simd_element(const unsigned char* given, int place) {
  M element;
  memcpy(&element, given + place, sizeof element);
  return float(element);
}
template <class C, class A, class B> static void multiply_8_8(C& d, A& a, B& b, C& c, int line) {
  unsigned char mine[32] = {};
  memcpy(mine, a.thread_elements(), sizeof a);
  memcpy(mine + 8, b.thread_elements(), sizeof b);
  int turn = meet(mine, sizeof mine, line, MULTIPLY_8_8), lane = current & 31;
  int row = (lane >> 1 & 3) + (lane >> 4) * 4;
  for (int e = 0; e < 2; ++e) {
    int column = (lane & 1) * 2 + (lane >> 3 & 1) * 4 + e;
    float sum = c.thread_elements()[e];
    for (int k = 0; k < 8; ++k)
      sum += simd_element<typename A::Element>(taken(turn, simd_lane(row, k)), k % 2 * sizeof(typename A::Element)) *
             simd_element<typename B::Element>(taken(turn, simd_lane(k, column)), 8 + column % 2 * sizeof(typename B::Element));
    d.thread_elements()[e] = sum;
  }
}

}  // namespace sim
