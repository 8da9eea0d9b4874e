// Memory that the loader's threads fill.

#include <ATen/ATen.h>

#include <cstring>

#include "border.h"

using senet::guarded;
using senet::hand_over;

extern "C" {

// u8 zeros. Page-locked memory goes to a GPU while this side goes on; libtorch's cache of it gives a block out again
// only when the copies from it are done. Zeroed here: at::zeros would start a team of OpenMP threads for each thread
// of the loader.
int senet_host_bytes(const int64_t *shape, size_t dimensions, int pinned, at::Tensor **out) {
  return guarded([&] {
    const auto options = at::TensorOptions(at::kByte).pinned_memory(pinned != 0);
    at::Tensor bytes = at::empty(at::IntArrayRef(shape, dimensions), options);
    std::memset(bytes.data_ptr(), 0, bytes.nbytes());
    hand_over(std::move(bytes), out);
  });
}

}  // extern "C"
