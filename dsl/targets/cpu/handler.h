// The XLA FFI handler of one kernel: its programs split over XLA's own threads when SPLIT is true.
//
// The kernel's source defines before this: ARGUMENTS, RESULTS, SCRATCH (bytes), PROGRAMS, SPLIT,
// `void prepare(void **args, void **results)` and
// `void programs(void **args, void **results, char *scratch, long first, long last)`.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>
#include "seats.h"
#include "xla/ffi/api/c_api.h"

struct Scratch {
  char *data = (char *)aligned_alloc(64, (SCRATCH + 64) / 64 * 64);
  ~Scratch() { free(data); }
};

static void work(void **args, void **results, long first, long last) {
  static thread_local Scratch scratch;
  programs(args, results, scratch.data, first, last);
}

// Programs are taken in chunks from a counter by whoever comes: the caller never waits for a thread that
// has not begun, so a busy pool cannot block it. Late tasks find nothing left; the last one frees.
struct Shared {
  void *args[ARGUMENTS + 1], *results[RESULTS + 1];
  long chunk;
  std::atomic<long> next{0}, done{0};
  void drain() {
    for (;;) {
      long first = next.fetch_add(chunk);
      if (first >= PROGRAMS) return;
      long last = first + chunk < PROGRAMS ? first + chunk : PROGRAMS;
      work(args, results, first, last);
      done.fetch_add(last - first, std::memory_order_release);
    }
  }
};

static void help(void *data) {
  auto *shared = (std::shared_ptr<Shared> *)data;
  (*shared)->drain();
  delete shared;
}

static void pooled(void *data) {
  help(data);
  linger();
}

static bool recruit(XLA_FFI_CallFrame *frame, const std::shared_ptr<Shared> &shared) {
  auto *own = new std::shared_ptr<Shared>(shared);
  if (give(help, own)) return true;
  XLA_FFI_ThreadPool_Schedule_Args args = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, nullptr, frame->ctx,
                                           pooled, own};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&args);
  if (error == nullptr) return true;
  XLA_FFI_Error_Destroy_Args gone = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  frame->api->XLA_FFI_Error_Destroy(&gone);
  delete own;
  return false;
}

static long threads(XLA_FFI_CallFrame *frame) {
  int64_t count = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, nullptr,
                                             frame->ctx, &count};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error == nullptr) return (long)count;
  XLA_FFI_Error_Destroy_Args gone = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  frame->api->XLA_FFI_Error_Destroy(&gone);
  return 1;
}

static void run(XLA_FFI_CallFrame *frame, void **args, void **results) {
  long count = SPLIT ? threads(frame) : 1;
  if (count > PROGRAMS) count = PROGRAMS;
  if (count <= 1) return work(args, results, 0, PROGRAMS);
  auto shared = std::make_shared<Shared>();
  for (int i = 0; i < ARGUMENTS; i++) shared->args[i] = args[i];
  for (int i = 0; i < RESULTS; i++) shared->results[i] = results[i];
  shared->chunk = (PROGRAMS + count * 16 - 1) / (count * 16);
  for (long i = 1; i < count; i++)
    if (!recruit(frame, shared)) break;
  shared->drain();
  while (shared->done.load(std::memory_order_acquire) < PROGRAMS) std::this_thread::yield();
}

extern "C" XLA_FFI_Error *handler(XLA_FFI_CallFrame *frame) {
  for (auto *ext = frame->extension_start; ext != nullptr; ext = ext->next)
    if (ext->type == XLA_FFI_Extension_Metadata) {
      auto *metadata = ((XLA_FFI_Metadata_Extension *)ext)->metadata;
      metadata->api_version.major_version = XLA_FFI_API_MAJOR;
      metadata->api_version.minor_version = XLA_FFI_API_MINOR;
      return nullptr;
    }
  if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return nullptr;
  void *args[ARGUMENTS + 1], *results[RESULTS + 1];
  for (int i = 0; i < ARGUMENTS; i++) args[i] = ((XLA_FFI_Buffer *)frame->args.args[i])->data;
  for (int i = 0; i < RESULTS; i++) results[i] = ((XLA_FFI_Buffer *)frame->rets.rets[i])->data;
  prepare(args, results);
  run(frame, args, results);
  return nullptr;
}

// The same without XLA, on one thread, for the listed programs: for the self-check.
extern "C" void call(void **args, void **results, const long *numbers, long count) {
  prepare(args, results);
  for (long i = 0; i < count; i++) work(args, results, numbers[i], numbers[i] + 1);
}
