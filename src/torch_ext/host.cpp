// Memory that the loader's threads fill, and its way from bytes to floats.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "border.h"

using senet::guarded;
using senet::hand_over;

namespace {

// Values that a pattern of factors is written out for: whole pixels of 1 or 3 channels, and whole vectors.
constexpr int64_t PATTERN = 48;

// y = x * factor + offset, both of which repeat every PATTERN values.
SENET_VECTORISED void affine_bytes(const uint8_t *__restrict x, const float *__restrict factor,
                                   const float *__restrict offset, int64_t count, float *__restrict y) {
  int64_t at = 0;
  for (; at + PATTERN <= count; at += PATTERN) {
    for (int64_t i = 0; i < PATTERN; ++i) y[at + i] = static_cast<float>(x[at + i]) * factor[i] + offset[i];
  }
  for (int64_t i = 0; at + i < count; ++i) y[at + i] = static_cast<float>(x[at + i]) * factor[i] + offset[i];
}

}  // namespace

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

// pixels * factor + offset for u8 pixels [N, H, W, C] in main memory and [C] factors and offsets, C a divisor of
// PATTERN; floats of the same shape. libtorch's broadcasting would walk in steps of C.
int senet_normalise_bytes(const at::Tensor *pixels, const at::Tensor *factor, const at::Tensor *offset,
                          at::Tensor **out) {
  return guarded([&] {
    TORCH_CHECK(pixels->is_contiguous() && pixels->scalar_type() == at::kByte && pixels->device().is_cpu() &&
                    pixels->dim() == 4,
                "not images in main memory");
    const int64_t channels = pixels->size(-1);
    TORCH_CHECK(channels > 0 && PATTERN % channels == 0, "images of ", channels, " channels");
    for (const at::Tensor *values : {factor, offset}) {
      TORCH_CHECK(values->device().is_cpu() && values->scalar_type() == at::kFloat && values->dim() == 1 &&
                      values->numel() == channels,
                  "factors and offsets that do not fit ", channels, " channels");
    }
    const at::Tensor factors = factor->repeat({PATTERN / channels}).contiguous();
    const at::Tensor offsets = offset->repeat({PATTERN / channels}).contiguous();
    at::Tensor floats = at::empty(pixels->sizes(), pixels->options().dtype(at::kFloat));
    const uint8_t *x = pixels->const_data_ptr<uint8_t>();
    float *y = floats.data_ptr<float>();
    const float *f = factors.const_data_ptr<float>(), *o = offsets.const_data_ptr<float>();
    const int64_t count = pixels->numel(), patterns = (count + PATTERN - 1) / PATTERN;
    at::parallel_for(0, patterns, 1024, [&](int64_t begin, int64_t end) {
      const int64_t from = begin * PATTERN, to = std::min(end * PATTERN, count);
      affine_bytes(x + from, f, o, to - from, y + from);
    });
    hand_over(std::move(floats), out);
  });
}

}  // extern "C"
