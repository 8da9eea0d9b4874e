// What libtorch offers and tch does not bind: versions, memory policy.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <torch/headeronly/version.h>

#include <cstdlib>

#include "border.h"

namespace senet {
thread_local std::string last_error;
}

using senet::guarded;

extern "C" {

// jemalloc, where that is this program's malloc, reads this before main: what was freed stays, in few arenas, so that a
// thread finds what others have freed. The environment's MALLOC_CONF wins.
const char *malloc_conf = "dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:8";

// jemalloc's as well.
int mallctl(const char *name, void *old_value, size_t *old_size, void *new_value, size_t new_size)
    __attribute__((weak));

const char *senet_last_error() { return senet::last_error.c_str(); }

const char *senet_torch_version() { return TORCH_VERSION; }

const char *senet_cpu_capability() {
  static const std::string capability = at::get_cpu_capability();
  return capability.c_str();
}

int senet_has_kernels() { return SENET_HAS_KERNELS; }

int senet_cuda_linked() { return at::detail::getCUDAHooks().hasCUDA() || at::globalContext().hasCUDA() ? 1 : 0; }

// The file that libtorch was loaded from, or null.
const char *senet_library_path() {
  Dl_info info;
  return dladdr(reinterpret_cast<void *>(&at::get_num_threads), &info) != 0 ? info.dli_fname : nullptr;
}

// c10 reads this once, at its first allocation. Set before main, while there is one thread: later, another could be
// reading the environment at the same time.
__attribute__((constructor)) static void ask_for_huge_pages() {
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
}

// A training step frees and asks again for hundreds of megabytes. Returned to the kernel each time, every page would be
// faulted in anew; kept and on huge pages they cost nothing the second time. The program's allocator, jemalloc, is
// told to keep them; where malloc is glibc's (in tests), it is told to. Says whether they are kept.
int senet_keep_large_blocks() {
  if (mallctl != nullptr) {
    ssize_t decay_ms = 0;
    size_t size = sizeof(decay_ms);
    return mallctl("opt.dirty_decay_ms", &decay_ms, &size, nullptr, 0) == 0 && decay_ms == -1 ? 1 : 0;
  }
#if defined(__GLIBC__)
  return mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1 ? 1 : 0;
#else
  return 0;
#endif
}

// Returns whether any of them was waiting.
int senet_hold_stop_signals(int held) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  sigset_t pending;
  sigpending(&pending);
  pthread_sigmask(held != 0 ? SIG_BLOCK : SIG_UNBLOCK, &signals, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) {
    if (sigismember(&pending, signal) == 1) return 1;
  }
  return 0;
}

}  // extern "C"
