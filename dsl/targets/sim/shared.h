// Shared memory that knows who touched what since the last barrier, as floats and as 16-bit elements.
#pragma once
#include "simulator.h"

namespace sim {

// N floats. Marks are of 2 bytes: `pool[k]` is floats 4 k .. 4 k + 3, `halves[k]` bytes 2 k and 2 k + 1.
template <int N> struct Shared {
  struct Mark { int64_t written = 0, read = 0; int writer = -1, reader = -1; };
  alignas(16) unsigned char data[4 * N];
  Mark marks[2 * N];
  int64_t filled = 0;
  [[noreturn]] void race(const char* what, int k, int other) {
    note("program %d: race on shared element %d, %s by thread %d and touched by thread %d with no barrier between",
         block_of_program, k, what, other, current);
    leave();
  }
  void check(int k, int size) {
    int count = 4 * N / size;
    if (k < 0 || k >= count) {
      note("program %d, thread %d: shared memory has %d elements and %d is touched", block_of_program, current, count, k);
      leave();
    }
    if (filled != serial) { memset((void*)data, 0x7f, sizeof data); filled = serial; }
  }
  template <class T> T read(int k) {
    check(k, sizeof(T));
    for (Mark* m = marks + k * (int)sizeof(T) / 2; m < marks + (k + 1) * (int)sizeof(T) / 2; ++m) {
      if (m->written == epoch && m->writer != current) race("written", k, m->writer);
      m->reader = m->read == epoch && m->reader != current ? -2 : current;
      m->read = epoch;
    }
    T value;
    memcpy(&value, data + k * (int)sizeof(T), sizeof(T));
    return value;
  }
  template <class T> void write(int k, T value) {
    check(k, sizeof(T));
    for (Mark* m = marks + k * (int)sizeof(T) / 2; m < marks + (k + 1) * (int)sizeof(T) / 2; ++m) {
      if (m->written == epoch && m->writer != current) race("written", k, m->writer);
      if (m->read == epoch && m->reader != current) race("read", k, m->reader);
      m->writer = current;
      m->written = epoch;
    }
    memcpy(data + k * (int)sizeof(T), &value, sizeof(T));
  }
  // An element, and what pointer arithmetic gives.
  template <class T> struct Cell {
    Shared& memory;
    int k;
    operator T() const { return memory.template read<T>(k); }
    Cell& operator=(T value) { memory.template write<T>(k, value); return *this; }
    Cell& operator=(const Cell& other) { return *this = T(other); }
  };
  template <class T> struct Pointer {
    typedef T Element;
    Shared& memory;
    int first;
    Cell<T> operator[](int k) const { return Cell<T>{memory, first + k}; }
    Pointer operator+(int k) const { return Pointer{memory, first + k}; }
  };
  Cell<float> operator[](int k) { return Cell<float>{*this, k}; }
  Pointer<float> operator+(int k) { return Pointer<float>{*this, k}; }
};
template <int N> static typename Shared<N>::template Pointer<uint16_t> halves(Shared<N>& pool) { return {pool, 0}; }

[[noreturn]] static void unaligned(const char* what, int64_t bytes) {
  note("program %d, thread %d: an access of %lld bytes %s is not aligned", block_of_program, current,
       (long long)bytes, what);
  leave();
}

// Neighbours from and to global memory, in one word of type V. Buffers count as aligned at their start.
static void check_aligned(const void* at, int64_t bytes) {
  for (const Guarded& one : guarded)
    if (at >= one.whole && at < one.whole + one.body + 2 * GUARD && ((unsigned char*)at - one.start) % bytes)
      unaligned(one.buffer->name, bytes);
}
template <class V, class T, class R> static void fetch(R* x, bool inside, const T* from) {
  if (inside) check_aligned(from, sizeof(V));
  for (unsigned e = 0; e < sizeof(V) / sizeof(T); ++e) {
    T found = T();
    if (inside) memcpy(&found, from + e, sizeof found);
    x[e] = R(found);
  }
}
template <class V, class T, class R> static void keep(T* to, const R* x) {
  check_aligned(to, sizeof(V));
  for (unsigned e = 0; e < sizeof(V) / sizeof(T); ++e) to[e] = T(x[e]);
}
template <class V, class T, class R> static void keep(Address<T> to, const R* x) {
  check_aligned(to.out.data + to.k, sizeof(V));
  for (unsigned e = 0; e < sizeof(V) / sizeof(T); ++e) to.out.write(to.k + e, T(x[e]));
}
// Neighbours to shared memory, zeros after the first `kept`.
template <class V, class P, class R> static void put(P to, const R* x, int kept = 1 << 30) {
  if (to.first * sizeof(R) % sizeof(V)) unaligned("of shared memory", sizeof(V));
  for (int e = 0; e < int(sizeof(V) / sizeof(R)); ++e) {
    typename P::Element bits = 0;
    static_assert(sizeof bits == sizeof(R), "shared memory holds elements of this size");
    if (e < kept) memcpy(&bits, x + e, sizeof bits);
    to[e] = bits;
  }
}

}  // namespace sim
