// Where the time of a computation goes, operator by operator: those of libtorch's dispatcher, the nodes of the backward
// pass, and ours (senet::Recorded). An operator's time is without that of the operators it calls. On a GPU it is the
// time that the host takes to ask for it.

#include <ATen/record_function.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "border.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Cost {
  int64_t calls = 0;
  double seconds = 0;
};

std::mutex mutex;
std::unordered_map<std::string, Cost> costs;
at::CallbackHandle handle = 0;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// An operator that is at work.
struct Running : at::ObserverContext {
  Running *const caller;
  const Clock::time_point start;
  double inner = 0;

  static thread_local Running *innermost;

  Running() : caller(innermost), start(Clock::now()) { innermost = this; }
};

thread_local Running *Running::innermost = nullptr;

std::unique_ptr<at::ObserverContext> began(const at::RecordFunction &) { return std::make_unique<Running>(); }

void ended(const at::RecordFunction &function, at::ObserverContext *context) {
  Running *const running = static_cast<Running *>(context);
  const double seconds = seconds_between(running->start, Clock::now());
  Running::innermost = running->caller;
  if (running->caller != nullptr) running->caller->inner += seconds;
  const std::lock_guard<std::mutex> lock(mutex);
  Cost &cost = costs[function.name()];
  ++cost.calls;
  cost.seconds += seconds - running->inner;
}

}  // namespace

extern "C" {

// Begins to count, from nothing.
int senet_profile_start() {
  return senet::guarded([] {
    const std::lock_guard<std::mutex> lock(mutex);
    costs.clear();
    if (handle == 0) {
      handle = at::addGlobalCallback(at::RecordFunctionCallback(began, ended)
                                         .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
    }
  });
}

// Stops counting, and tells each operator's name, calls and seconds.
int senet_profile_stop(void (*tell)(void *context, const char *name, int64_t calls, double seconds), void *context) {
  return senet::guarded([&] {
    if (handle != 0) at::removeCallback(handle);
    handle = 0;
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto &[name, cost] : costs) tell(context, name.c_str(), cost.calls, cost.seconds);
    costs.clear();
  });
}

}  // extern "C"
