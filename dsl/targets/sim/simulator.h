// A GPU block on one CPU core: a fiber for each thread, blocks one after another.
//
// A fiber runs until it needs others: a block barrier or a warp operation. Which runs next is drawn from
// a seed. Found and reported: threads that leave or wait while others need them, barriers and warp
// operations that not all reach alike, shuffles from outside of the warp, races on and positions outside
// of shared memory, accesses outside of a buffer, and an element of an output written twice.
#pragma once
#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace sim {

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Thread {
  jmp_buf context;
  char* stack = nullptr;
  State state = DONE;
  bool fresh = true;
  int line = 0, mask = 0, turn = 0;
};

struct Buffer {  // as run.py fills it
  const char* name;
  unsigned char* data;
  int64_t bytes;
  int32_t element;   // bytes of one element
  int32_t writable;
};

static const size_t STACK = 512 * 1024, GUARD = 1 << 20;
static std::vector<Thread> threads;
static jmp_buf scheduler;
static int current = 0, block_of_program = 0;
static int mutant = 0;  // which planted mistake is at work: see mutate.py
static int64_t epoch = 1, serial = 0;
static uint32_t seed = 0;
static bool failed = false;
static char message[512];
static unsigned char exchanged[2][1024][32];
static void (*entry)(void**) = nullptr;
static void** arguments = nullptr;

static inline uint32_t drawn() { seed = seed * 1664525u + 1013904223u; return seed >> 8; }

static void note(const char* format, ...) {
  failed = true;
  va_list rest;
  va_start(rest, format);
  vsnprintf(message, sizeof message, format, rest);
  va_end(rest);
}
[[noreturn]] static void leave() { _longjmp(scheduler, 1); }

static void first_step() {
  entry(arguments);
  threads[current].state = DONE;
  leave();
}

static void pause(State state, int line, int mask) {
  Thread& me = threads[current];
  me.state = state;
  me.line = line;
  me.mask = mask;
  if (!_setjmp(me.context)) leave();
}

static void resume(int which) {
  current = which;
  if (_setjmp(scheduler)) return;
  Thread& next = threads[which];
  if (!next.fresh) _longjmp(next.context, 1);
  next.fresh = false;
  static ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = next.stack;
  start.uc_stack.ss_size = STACK;
  start.uc_link = nullptr;
  makecontext(&start, first_step, 0);
  setcontext(&start);
}

static inline void barrier(int line) { pause(AT_BARRIER, line, 0); }

// Gives up to 32 bytes to the warp and waits for all of it; `what` tells operations apart. Two buffers in
// turn need only one meeting. Then `taken` says what a thread gave.
static int meet(const void* mine, size_t bytes, int line, int what) {
  Thread& me = threads[current];
  int turn = me.turn ^= 1;
  memcpy(exchanged[turn][current], mine, bytes);
  pause(AT_WARP, line, what);
  return turn;
}
static inline const unsigned char* taken(int turn, int lane) { return exchanged[turn][(current & ~31) + lane]; }

// The value that lane ^ mask of this warp gives.
template <class V> static V shuffle_xor(V value, int mask, int line) {
  static_assert(sizeof(V) <= 8, "a shuffle moves at most 8 bytes");
  if (mask < 1 || mask > 31) {
    note("program %d, thread %d: shuffle with mask %d, outside of the warp", block_of_program, current, mask);
    leave();
  }
  int turn = meet(&value, sizeof value, line, mask);
  V found;
  memcpy(&found, taken(turn, (current & 31) ^ mask), sizeof found);
  return found;
}

// Lets a warp go on once all its threads are at the same operation. True if it was let go.
static bool meet_warp(int low, int high) {
  int waiting = 0;
  for (int i = low; i < high; ++i) waiting += threads[i].state == AT_WARP;
  if (!waiting || failed) return false;
  for (int i = low; i < high; ++i) {
    const Thread& one = threads[i];
    if (one.state != AT_WARP || one.line != threads[low].line || one.mask != threads[low].mask) {
      note("program %d: divergent warp operation, thread %d is elsewhere", block_of_program, i);
      return false;
    }
  }
  for (int i = low; i < high; ++i) threads[i].state = READY;
  return true;
}

static bool run_warp(int low, int high) {
  bool ran = false;
  do {
    int turn = seed ? drawn() % (high - low) : 0;
    for (int k = low; k < high && !failed; ++k) {
      int i = low + (k - low + turn) % (high - low);
      if (threads[i].state == READY) { resume(i); ran = true; }
    }
  } while (meet_warp(low, high));
  return ran;
}

static bool meet_block(int count) {  // true when the block is done or broken
  int done = 0;
  for (int i = 0; i < count; ++i) done += threads[i].state == DONE;
  if (done == count) return true;
  if (done) { note("program %d: %d threads left before a barrier that others wait at", block_of_program, done); return true; }
  for (int i = 0; i < count; ++i)
    if (threads[i].state != AT_BARRIER || threads[i].line != threads[0].line) {
      note("program %d: divergent barrier, threads 0 and %d wait at lines %d and %d", block_of_program, i,
           threads[0].line, threads[i].line);
      return true;
    }
  for (int i = 0; i < count; ++i) threads[i].state = READY;
  ++epoch;
  return false;
}

static void run_block(int count) {
  if ((int)threads.size() < count) threads.resize(count);
  for (int i = 0; i < count; ++i) {
    Thread& one = threads[i];
    if (!one.stack)
      one.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    one.state = READY;
    one.fresh = true;
    one.turn = 0;
  }
  ++serial;
  ++epoch;
  do {
    bool ran = false;
    int warps = count / 32, turn = seed ? drawn() % warps : 0;
    for (int k = 0; k < warps && !failed; ++k) {
      int low = (k + turn) % warps * 32;
      ran |= run_warp(low, low + 32);
    }
    if (!ran && !failed) note("program %d: deadlock", block_of_program);
  } while (!failed && !meet_block(count));
}

// Buffers between pages that may not be touched: flush with the end, or with the beginning.
struct Guarded {
  Buffer* buffer;
  unsigned char *whole, *start;
  size_t body;
  std::vector<int64_t> writer;  // 0, or who wrote the element: 1 + program * 1024 + thread
};
static std::vector<Guarded> guarded;
static struct sigaction old_segv, old_bus;

static void place(Buffer& buffer, bool at_end) {
  size_t page = sysconf(_SC_PAGESIZE), body = (buffer.bytes + page - 1) / page * page;
  auto* whole = (unsigned char*)mmap(nullptr, body + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(whole + GUARD, body, PROT_READ | PROT_WRITE);
  unsigned char* start = whole + GUARD + (at_end ? body - buffer.bytes : 0);
  memcpy(start, buffer.data, buffer.bytes);
  if (!buffer.writable) mprotect(whole + GUARD, body, PROT_READ);
  guarded.push_back({&buffer, whole, start, body, std::vector<int64_t>(buffer.writable ? buffer.bytes / buffer.element : 0)});
}

static void on_fault(int, siginfo_t* info, void*) {
  auto* at = (unsigned char*)info->si_addr;
  for (Guarded& one : guarded) {
    if (at < one.whole || at >= one.whole + one.body + 2 * GUARD) continue;
    int64_t element = (at - one.start) / one.buffer->element, count = one.buffer->bytes / one.buffer->element;
    if (at < one.start) element = -((one.start - at + one.buffer->element - 1) / one.buffer->element);
    if (element >= 0 && element < count)
      note("program %d, thread %d: write to %s, an input", block_of_program, current, one.buffer->name);
    else
      note("program %d, thread %d: out of bounds, %s has %lld elements and %lld is touched", block_of_program,
           current, one.buffer->name, (long long)count, (long long)element);
    leave();
  }
  sigaction(SIGSEGV, &old_segv, nullptr);  // not ours: the next attempt reaches who was there before
  sigaction(SIGBUS, &old_bus, nullptr);
}

// An output that knows who wrote each element: nobody may do so twice.
template <class T> struct Out;
template <class T> struct Address { Out<T>& out; int64_t k; };
template <class T> struct Out {
  T* data;
  int number;
  struct Cell {
    Out& out;
    int64_t k;
    Address<T> operator&() { return {out, k}; }
    Cell& operator=(T value) { out.write(k, value); return *this; }
  };
  Cell operator[](int64_t k) { return Cell{*this, k}; }
  void write(int64_t k, T value) {
    std::vector<int64_t>& writer = guarded[number].writer;
    const char* name = guarded[number].buffer->name;
    int64_t me = 1 + (int64_t)block_of_program * 1024 + current, count = writer.size();
    if (k < 0 || k >= count) {
      note("program %d, thread %d: out of bounds, %s has %lld elements and %lld is touched", block_of_program, current,
           name, (long long)count, (long long)k);
      leave();
    }
    if (int64_t other = writer[k]) {
      note("program %d, thread %d writes element %lld of %s, which program %d, thread %d has written already",
           block_of_program, current, (long long)k, name, (int)((other - 1) / 1024), (int)((other - 1) % 1024));
      leave();
    }
    writer[k] = me;
    data[k] = value;
  }
};

static int program_at(int turn, int blocks, uint32_t order) {
  if (order % 3 == 0) return turn;
  return order % 3 == 1 ? blocks - 1 - turn : (int)((turn + order) % blocks);
}

static int run(Buffer* buffers, int count, int blocks, int block_threads, uint32_t order, char* told, int size,
               void (*kernel)(void**), void (*enter)(int)) {
  failed = false;
  message[0] = 0;
  seed = order;
  guarded.clear();
  std::vector<void*> starts;
  for (int b = 0; b < count; ++b) {
    place(buffers[b], order % 2 == 0);
    starts.push_back(guarded.back().start);
  }
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &old_segv);
  sigaction(SIGBUS, &action, &old_bus);
  entry = kernel;
  arguments = starts.data();
  for (int turn = 0; turn < blocks && !failed; ++turn) {
    block_of_program = program_at(turn, blocks, order);
    enter(block_of_program);
    run_block(block_threads);
  }
  sigaction(SIGSEGV, &old_segv, nullptr);
  sigaction(SIGBUS, &old_bus, nullptr);
  for (Guarded& one : guarded) {
    if (one.buffer->writable) memcpy(one.buffer->data, one.start, one.buffer->bytes);
    munmap(one.whole, one.body + 2 * GUARD);
  }
  for (Thread& one : threads) munmap(one.stack, STACK);
  threads.clear();
  snprintf(told, size, "%s", message);
  return failed;
}

// Conversions of narrow floats, to nearest even.
static inline float from_f16(uint16_t h) {
  uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023, bits;
  if (exponent == 31) bits = sign | 0x7f800000 | (mantissa << 13);
  else if (exponent) bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  else { float tiny = std::ldexp((float)mantissa, -24); return sign ? -tiny : tiny; }
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline uint16_t to_f16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint16_t sign = (bits >> 16) & 0x8000;
  float size = std::fabs(f);
  if (size != size) return sign | 0x7e00;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < 6.103515625e-05f) return sign | (uint16_t)std::nearbyint(std::ldexp(size, 24));
  bits &= 0x7fffffff;
  bits += 0xfff + ((bits >> 13) & 1);
  return sign | (uint16_t)((bits >> 13) - (112 << 10));
}
static inline float from_bf16(uint16_t h) {
  uint32_t bits = (uint32_t)h << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline uint16_t to_bf16(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace sim
