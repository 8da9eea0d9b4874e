// Number formats of the computation: autocast (which operators compute in half of the bits), and TensorFloat-32.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>

#include "border.h"

using senet::guarded;

extern "C" {

// From here on, convolutions and matrix products of this thread compute in bfloat16 or float16, on `cuda` or the CPU.
// `before` receives what was in force: whether autocast was enabled, its format, and whether it kept copies.
int senet_autocast_enter(int cuda, int bfloat16, int *before) {
  return guarded([&] {
    const at::DeviceType device = cuda != 0 ? at::kCUDA : at::kCPU;
    before[0] = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    before[1] = static_cast<int>(at::autocast::get_autocast_dtype(device));
    before[2] = at::autocast::is_autocast_cache_enabled() ? 1 : 0;
    at::autocast::set_autocast_dtype(device, bfloat16 != 0 ? at::kBFloat16 : at::kHalf);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::set_autocast_cache_enabled(true);
    at::autocast::increment_nesting();
  });
}

// The weights' copies of fewer bits are kept from the first use to here.
int senet_autocast_leave(int cuda, const int *before) {
  return guarded([&] {
    const at::DeviceType device = cuda != 0 ? at::kCUDA : at::kCPU;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, before[0] != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before[1]));
    at::autocast::set_autocast_cache_enabled(before[2] != 0);
  });
}

// Whether GPUs may round the inputs of float32 convolutions and matrix products to 10 bits of mantissa.
int senet_allow_tf32(int allowed) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(allowed != 0);
    at::globalContext().setAllowTF32CuBLAS(allowed != 0);
  });
}

}  // extern "C"
