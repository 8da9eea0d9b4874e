// Feature maps [N, C, H, W] in channels_last are rows of C values. Loops over them, cut into pieces for the threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "border.h"

namespace senet {

// Rows that are summed in float32 before they join a total: few enough to lose little, many enough to cost nothing.
constexpr int64_t kBlockRows = 64;

inline bool is_plain_map(const at::Tensor &x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 4 && x.numel() > 0 &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

// Whether its values can be read as `count` floats, one behind the other.
inline bool is_plain_row(const at::Tensor &x, int64_t count) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.numel() == count && x.is_contiguous();
}

// `groups` groups of `rows` rows each, every group cut so that all threads have work.
struct Pieces {
  int64_t groups, rows, channels, per_group;

  Pieces(int64_t groups, int64_t rows, int64_t channels) : groups(groups), rows(rows), channels(channels) {
    const int64_t threads = at::get_num_threads();
    per_group = std::clamp<int64_t>((threads + groups - 1) / groups, 1, rows);
  }

  // A group for each sample.
  static Pieces of_samples(const at::Tensor &x) { return {x.size(0), x.size(2) * x.size(3), x.size(1)}; }

  // One group of all rows.
  static Pieces of_all(const at::Tensor &x) { return {1, x.size(0) * x.size(2) * x.size(3), x.size(1)}; }

  int64_t count() const { return groups * per_group; }

  // Calls body(piece, group, first value, rows) for each piece, on all threads.
  template <typename Body>
  void each(Body body) const {
    at::parallel_for(0, count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t group = piece / per_group, part = piece % per_group;
        const int64_t first = rows * part / per_group, last = rows * (part + 1) / per_group;
        body(piece, group, (group * rows + first) * channels, last - first);
      }
    });
  }

  // [groups, K * C] float64 sums: body(first value, rows, block) adds up to kBlockRows rows to a zeroed block of K * C.
  template <typename Body>
  at::Tensor sums(int64_t k, Body body) const {
    const int64_t width = k * channels;
    at::Tensor partial = at::zeros({count(), width}, at::kDouble);
    double *totals = partial.data_ptr<double>();
    each([&](int64_t piece, int64_t, int64_t first, int64_t piece_rows) {
      std::vector<float> block(width);
      double *total = totals + piece * width;
      for (int64_t row = 0; row < piece_rows; row += kBlockRows) {
        std::fill(block.begin(), block.end(), 0.0f);
        body(first + row * channels, std::min(kBlockRows, piece_rows - row), block.data());
        for (int64_t i = 0; i < width; ++i) total[i] += block[i];
      }
    });
    return per_group == 1 ? partial : partial.view({groups, per_group, width}).sum(1);
  }
};

}  // namespace senet
