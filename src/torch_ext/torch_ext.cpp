// What libtorch offers and tch does not bind: versions, memory policy, the fused optimizer step.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/GradMode.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/headeronly/version.h>

#include <cstdlib>

#include "border.h"

namespace senet {
thread_local std::string last_error;
}

using senet::guarded;

extern "C" {

const char *senet_last_error() { return senet::last_error.c_str(); }

const char *senet_torch_version() { return TORCH_VERSION; }

const char *senet_cpu_capability() {
  static const std::string capability = at::get_cpu_capability();
  return capability.c_str();
}

int senet_cuda_linked() { return at::detail::getCUDAHooks().hasCUDA() || at::globalContext().hasCUDA() ? 1 : 0; }

// The file that libtorch was loaded from, or null.
const char *senet_library_path() {
  Dl_info info;
  return dladdr(reinterpret_cast<void *>(&at::get_num_threads), &info) != 0 ? info.dli_fname : nullptr;
}

// A training step frees and asks again for hundreds of megabytes. glibc would return large blocks to the kernel
// each time and fault every page in anew; kept and on huge pages they cost nothing the second time.
// Must run before libtorch allocates: c10 reads THP_MEM_ALLOC_ENABLE once.
int senet_keep_large_blocks() {
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);
#if defined(__GLIBC__)
  const bool kept = mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1;
  return kept ? 1 : 0;
#else
  return 0;
#endif
}

// One call for all parameters of a group: v = momentum * v + (g + weight_decay * p); p -= lr * (v or Nesterov's).
// Parameters without a gradient are left alone. `first` says that the momenta have no history yet.
int senet_fused_sgd_step(at::Tensor **params, at::Tensor **momenta, size_t count, double lr, double momentum,
                         double weight_decay, int nesterov, int first) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> values, grads, buffers;
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor &grad = params[i]->grad();
      if (!grad.defined()) continue;
      values.push_back(*params[i]);
      grads.push_back(grad);
      buffers.push_back(*momenta[i]);
    }
    if (values.empty()) return;
    at::_fused_sgd_(values, grads, buffers, weight_decay, momentum, lr, /*dampening=*/0.0, nesterov != 0,
                    /*maximize=*/false, first != 0);
  });
}

// Dropping a gradient is cheaper than filling it with zeros: the next backward pass stores instead of adding.
int senet_drop_gradients(at::Tensor **params, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) params[i]->mutable_grad().reset();
  });
}

}  // extern "C"
