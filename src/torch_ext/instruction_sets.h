// The kernels of the file SENET_KERNELS, compiled for each instruction set, and the choice between them:
//
//   const Kernels *kernels();   // for this processor (and ATEN_CPU_CAPABILITY), or null
//
// To be included inside an anonymous namespace that has a `struct Kernels`, a table which the file fills as `kKernels`.
// The file may include nothing: what it included would be compiled for that instruction set, too.

#if SENET_HAS_KERNELS
#define SENET_INLINE inline __attribute__((always_inline))
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define SENET_LANES 8
#include "vectors.h"
#include SENET_KERNELS
#undef SENET_LANES
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,fma")
namespace avx512 {
#define SENET_LANES 16
#include "vectors.h"
#include SENET_KERNELS
#undef SENET_LANES
}  // namespace avx512
#pragma GCC pop_options
#undef SENET_INLINE

const Kernels *kernels() {
  static const Kernels *const chosen = []() -> const Kernels * {
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return &avx512::kKernels;
    if (capability == "AVX2") return &avx2::kKernels;
    return nullptr;
  }();
  return chosen;
}
#else
const Kernels *kernels() { return nullptr; }
#endif
