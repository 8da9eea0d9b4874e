// The border between C++ and Rust. A function returns 0, or -1 and leaves its reason in senet_last_error(); no
// exception crosses. Tensors are at::Tensor*, as tch holds them; a new one is handed over through `out`.
#pragma once

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>

namespace senet {

extern thread_local std::string last_error;

template <typename Body>
int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const c10::Error &error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception &error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an exception of unknown type";
  }
  return -1;
}

// An operator of ours, for those who record operators (profile.cpp), as long as this lives.
struct Recorded {
  at::RecordFunction function{at::RecordScope::FUNCTION};

  explicit Recorded(const char *name) {
    if (function.isActive()) function.before(name);
  }
};

inline void hand_over(at::Tensor tensor, at::Tensor **out) { *out = new at::Tensor(std::move(tensor)); }

inline std::optional<at::Tensor> optional(const at::Tensor *tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<at::Tensor>(*tensor);
}

}  // namespace senet

// Whether this compiler can compile one function for several instruction sets, and the kernels of instruction_sets.h.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SENET_HAS_KERNELS 1
#else
#define SENET_HAS_KERNELS 0
#endif

// Loops over features are bound by memory, but only if they are vectorised: each is compiled for the instruction sets
// below, and the loader picks the best that the processor has.
#if SENET_HAS_KERNELS
#define SENET_VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SENET_VECTORISED
#endif
