// Where helpers wait for the next kernel: waking a sleeping thread costs as much as a small kernel takes.
//
// A task on XLA's pool that finds its kernel done takes a seat and spins there for LINGER; whoever runs the
// next kernel gives its work to those who sit before it asks the pool for more. The seats are memory of the
// process that every kernel's library is handed (`seat`); without them nobody waits.
#pragma once
#include <atomic>
#include <chrono>

enum { EMPTY, WAITING, TAKEN, GIVEN };
// EMPTY -> WAITING by the helper, WAITING -> TAKEN -> GIVEN by a giver, GIVEN or WAITING -> EMPTY by the helper.

struct alignas(64) Seat {
  std::atomic<int> state;
  void (*task)(void *);
  void *data;
};

static constexpr int SEATS = 64;
static constexpr std::chrono::microseconds LINGER{100};
static Seat *seats = nullptr;

extern "C" long seat_bytes() { return sizeof(Seat) * SEATS; }
extern "C" void seat(void *memory) { seats = (Seat *)memory; }

static inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether somebody who waits took the task.
static inline bool give(void (*task)(void *), void *data) {
  if (seats == nullptr) return false;
  for (int i = 0; i < SEATS; i++) {
    int expected = WAITING;
    if (seats[i].state.load(std::memory_order_relaxed) != WAITING) continue;
    if (!seats[i].state.compare_exchange_strong(expected, TAKEN, std::memory_order_acquire)) continue;
    seats[i].task = task, seats[i].data = data;
    seats[i].state.store(GIVEN, std::memory_order_release);
    return true;
  }
  return false;
}

// Sits down until LINGER has passed without a task; runs what is given.
static inline void linger() {
  if (seats == nullptr) return;
  for (int i = 0; i < SEATS; i++) {
    int expected = EMPTY;
    if (!seats[i].state.compare_exchange_strong(expected, WAITING, std::memory_order_release)) continue;
    auto until = std::chrono::steady_clock::now() + LINGER;
    for (;;) {
      for (int spin = 0; spin < 32 && seats[i].state.load(std::memory_order_relaxed) != GIVEN; spin++) relax();
      if (seats[i].state.load(std::memory_order_acquire) == GIVEN) {
        seats[i].task(seats[i].data);
        seats[i].state.store(WAITING, std::memory_order_release);
        until = std::chrono::steady_clock::now() + LINGER;
      } else if (std::chrono::steady_clock::now() > until) {
        expected = WAITING;
        if (seats[i].state.compare_exchange_strong(expected, EMPTY, std::memory_order_relaxed)) return;
      }
    }
  }
}
