// Memory for the threads of a parallel region.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace senet {

// Threads that a parallel region may have here: its OpenMP could be another than libtorch's, and not know of its settings.
inline int64_t most_threads() {
#ifdef _OPENMP
  return std::max(at::get_num_threads(), omp_get_max_threads());
#else
  return at::get_num_threads();
#endif
}

// Floats for each thread that takes part, of `tasks` tasks at least one.
struct Scratch {
  at::Tensor values;
  int64_t size;

  explicit Scratch(int64_t size, int64_t tasks = std::numeric_limits<int64_t>::max()) : size((size + 15) / 16 * 16) {
    values = at::empty({std::min(most_threads(), tasks), this->size}, at::kFloat);
  }

  float *mine() const { return values.data_ptr<float>() + at::get_thread_num() * size; }

  void clear() const { values.zero_(); }

  // Adds all threads' floats to the first one's.
  float *sum() const {
    float *total = values.data_ptr<float>();
    const int64_t threads = values.size(0), all = size;
    at::parallel_for(0, all, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t thread = 1; thread < threads; ++thread) {
        for (int64_t i = begin; i < end; ++i) total[i] += total[thread * all + i];
      }
    });
    return total;
  }
};

}  // namespace senet
