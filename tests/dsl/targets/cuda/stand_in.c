// A stand-in for libcuda.so.1, compiled from the prototypes of cuda.h: it checks what it is passed, notes it,
// and gives the addresses of a launch's parameters to a function of the test. Host memory is its device.
#include <cstddef>
#include <cstring>
typedef int CUresult;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
extern "C" {
static CUcontext current = nullptr;
static const CUstream STREAM = (CUstream)0x7f0000001234;
static const CUcontext CONTEXT = (CUcontext)0x7f00000abcde;
int loads = 0, parameters = 0;
unsigned noted[7];
void (*launched)(CUdeviceptr *values) = nullptr;

CUresult cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == 700 ? "an illegal memory access was encountered" : "invalid argument";
  return 0;
}
CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
  *context = CONTEXT;
  return stream == STREAM ? 0 : 1;
}
CUresult cuCtxPushCurrent_v2(CUcontext context) { return (current = context) == CONTEXT ? 0 : 1; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  *context = current;
  current = nullptr;
  return *context == CONTEXT ? 0 : 1;
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = (CUmodule)image;
  loads++;
  return current == CONTEXT && memcmp(image, "\x7f" "ELF\0code", 9) == 0 ? 0 : 1;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  *function = (CUfunction)0x7f0000005678;
  return module != nullptr && strcmp(name, "append_kernel") == 0 ? 0 : 1;
}
CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t count, CUstream stream) {
  memset((void *)at, value, count);
  return stream == STREAM && current == CONTEXT ? 0 : 1;
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **given,
                        void **extra) {
  unsigned all[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared};
  memcpy(noted, all, sizeof all);
  if (function != (CUfunction)0x7f0000005678 || stream != STREAM || current != CONTEXT || extra) return 1;
  CUdeviceptr values[16];
  for (int i = 0; i < parameters; i++) values[i] = *(CUdeviceptr *)given[i];
  if (launched == nullptr) return 700;
  launched(values);
  return 0;
}
}
