// Many processes: c10d's store, process groups (gloo in main memory, NCCL on CUDA) and DDP's Reducer.
//
// Handles are counted references, each keeping alive what it stands on: a reducer its group, a group its store. They
// may be freed in any order. Calls block; Rust sees to time limits by those given here.

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

// libtorch has gloo inside wherever it has c10d; the macro opens the header.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

// build.rs says whether this libtorch has CUDA. NCCL's header is a package of its own.
#if defined(SENET_CUDA) && __has_include(<nccl.h>) && __has_include(<cuda_runtime_api.h>)
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "border.h"
#include "group.h"

using at::Tensor;
using senet::guarded;
using std::chrono::milliseconds;
using Tensors = std::vector<Tensor>;

namespace {

// As PyTorch's: buckets of a broadcast may be large, those of gradients must be ready early.
constexpr size_t BROADCAST_BYTES = 250 << 20;

Tensors listed(Tensor **tensors, size_t count) {
  Tensors list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) list.push_back(*tensors[i]);
  return list;
}

// c10d logs its own view of every connection that breaks and every wait that ends, with back-traces. We tell our users
// ourselves; who sets libtorch's variable sees all that.
void silence_log() {
#ifndef C10_USE_GLOG
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
#endif
}

// What the last senet_store_get of this thread has read.
thread_local std::vector<std::vector<uint8_t>> answers;

}  // namespace

namespace senet {

// A connection to the key-value store, and the folder of keys that is ours.
struct Store {
  c10::intrusive_ptr<c10d::TCPStore> connection;
  c10::intrusive_ptr<c10d::Store> keys;
};

struct Reducer {
  std::shared_ptr<c10d::Reducer> reducer;
  bool find_unused;
  // A static graph's first backward pass is reduced as a whole, at its end.
  bool reduce_late;
};

}  // namespace senet

using senet::Group;
using senet::Reducer;
using senet::Store;

namespace {

// Adds NCCL for the tensors of `device`. Its communicator is made now, not at the first operation: what is wrong with
// it is said at the start.
void join_nccl([[maybe_unused]] c10d::ProcessGroup &group, [[maybe_unused]] const Store &store,
               [[maybe_unused]] at::Device device, [[maybe_unused]] milliseconds timeout) {
#ifdef USE_C10D_NCCL
  const c10::DeviceGuard guard(device);  // not CUDAGuard, which would have us link libcudart
  auto options = c10d::ProcessGroupNCCL::Options::create();
  // NCCL's own watchdog ends the process without a word of whose fault it was. It is for when our own have failed.
  constexpr std::chrono::minutes kMargin(2);
  options->timeout = 2 * timeout + kMargin;
  auto keys = c10::make_intrusive<c10d::PrefixStore>("nccl/", store.keys);
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(keys, group.getRank(), group.getSize(), options);
  nccl->setSequenceNumberForGroup();
  group.setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, nccl);
  group.setGroupName("senet");
  nccl->eagerConnectSingleDevice(device);
#else
  TORCH_CHECK(false, "this program was built without NCCL");
#endif
}

}  // namespace

extern "C" {

// Connects to the store at host:port, within the time. With `serve` this process keeps it: on `listener`, a socket that
// is bound to the port and becomes the store's, or, where that is -1, on all interfaces (port 0 takes a free one).
int senet_store_open(const char *host, uint16_t port, int serve, int listener, int64_t timeout_ms, const char *prefix,
                     Store **out) {
  return guarded([&] {
    silence_log();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve != 0;
    if (serve != 0 && listener >= 0) options.masterListenFd = listener;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto connection = c10::make_intrusive<c10d::TCPStore>(host, options);
    auto keys = c10::make_intrusive<c10d::PrefixStore>(prefix, connection);
    *out = new Store{std::move(connection), std::move(keys)};
  });
}

uint16_t senet_store_port(const Store *store) { return store->connection->getPort(); }

int senet_store_set(Store *store, const char *key, const uint8_t *value, size_t length) {
  return guarded([&] { store->keys->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Reads keys that are there; waits for those that are not. The values are this thread's until its next call.
int senet_store_get(Store *store, const char *const *keys, size_t count) {
  return guarded([&] { answers = store->keys->multiGet(std::vector<std::string>(keys, keys + count)); });
}

// One of the values of this thread's last senet_store_get.
const uint8_t *senet_store_answer(size_t index, size_t *length) {
  *length = answers[index].size();
  return answers[index].data();
}

// Adds to a number that starts at 0.
int senet_store_add(Store *store, const char *key, int64_t amount, int64_t *sum) {
  return guarded([&] { *sum = store->keys->add(key, amount); });
}

int senet_store_has(Store *store, const char *key, int *there) {
  return guarded([&] { *there = store->keys->check({key}) ? 1 : 0; });
}

int senet_store_delete(Store *store, const char *key) {
  return guarded([&] { store->keys->deleteKey(key); });
}

// Waits until all keys are there; `there` says whether they came within the time.
int senet_store_wait(Store *store, const char *const *keys, size_t count, int64_t timeout_ms, int *there) {
  return guarded([&] {
    const std::vector<std::string> names(keys, keys + count);
    try {
      store->keys->wait(names, milliseconds(timeout_ms));
      *there = 1;
    } catch (const c10::DistStoreError &) {
      // Out of time, or something worse: that the next question will tell.
      *there = store->keys->check(names) ? 1 : 0;
    }
  });
}

int senet_store_free(Store *store) {
  return guarded([&] { delete store; });
}

// Whether groups on CUDA are compiled in.
int senet_group_has_nccl() {
#ifdef USE_C10D_NCCL
  return 1;
#else
  return 0;
#endif
}

// Joins the group of `size` processes, all of which must do so within the time; it also limits each operation.
// gloo listens at `address`, or at the interfaces of GLOO_SOCKET_IFNAME when it is empty. `cuda` is the index of the
// device whose tensors are to be reduced by NCCL, or -1.
int senet_group_join(Store *store, int rank, int size, const char *address, int cuda, int64_t timeout_ms, Group **out) {
  return guarded([&] {
    using Kind = c10d::ProcessGroup::BackendType;
    const milliseconds timeout(timeout_ms);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store->keys, rank, size);
    group->setDefaultBackend(cuda >= 0 ? Kind::NCCL : Kind::GLOO);
    // The device that belongs to this rank.
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(cuda >= 0 ? cuda : 0));
    if (cuda >= 0) group->setBoundDeviceId(device);

    auto options = *address == '\0' ? c10d::ProcessGroupGloo::Options::create_default(timeout)
                                    : c10d::ProcessGroupGloo::Options::create(timeout);
    if (*address != '\0') options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    auto gloo_keys = c10::make_intrusive<c10d::PrefixStore>("gloo/", store->keys);
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(gloo_keys, rank, size, options);
    gloo->setSequenceNumberForGroup();
    group->setBackend(c10::DeviceType::CPU, Kind::GLOO, gloo);
    group->setGroupName("senet");
    if (cuda >= 0) join_nccl(*group, *store, device, timeout);
    *out = new Group{std::move(group)};
  });
}

// Gives all ranks rank 0's values, in place. Waits for the host's part; on CUDA the stream waits for the rest.
int senet_group_broadcast(Group *group, Tensor **tensors, size_t count) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Tensors list = listed(tensors, count);
    if (!list.empty()) c10d::broadcast_coalesced(group->group, list, BROADCAST_BYTES, /*rank=*/0);
  });
}

// Replaces each tensor by the sum of all ranks' (or the mean), in place: one operation for each kind and device.
int senet_group_all_reduce(Group *group, Tensor **tensors, size_t count, int mean) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    std::map<std::pair<std::string, at::ScalarType>, Tensors> kinds;
    for (const Tensor &tensor : listed(tensors, count)) {
      kinds[{tensor.device().str(), tensor.scalar_type()}].push_back(tensor);
    }
    for (auto &[kind, list] : kinds) {
      Tensors flat;
      for (const Tensor &tensor : list) flat.push_back(tensor.detach().reshape({-1}));
      Tensors whole{at::cat(flat)};
      group->group->allreduce(whole)->wait();
      if (mean != 0) whole[0].div_(group->group->getSize());
      int64_t at = 0;
      for (Tensor &tensor : list) {
        const int64_t values = tensor.numel();
        tensor.detach().copy_(whole[0].narrow(0, at, values).view(tensor.sizes()));
        at += values;
      }
    }
  });
}

// Gives up what is under way, from any thread, so that whoever waits for it is let go. gloo's operations end by their
// own time limit.
int senet_group_abort(Group *group) {
  return guarded([&] { group->group->abort(); });
}

// A second reference, for another thread.
int senet_group_share(Group *group, Group **out) {
  return guarded([&] { *out = new Group{group->group}; });
}

// Says good-bye to the others' connections; NCCL wants to be told before it is freed.
int senet_group_shutdown(Group *group) {
  return guarded([&] { group->group->shutdown(); });
}

int senet_group_free(Group *group) {
  return guarded([&] { delete group; });
}

// DDP's Reducer for parameters that are alike on all ranks, which nobody checks here. In each backward pass
// after prepare_backward it reduces gradients to their mean over the ranks, a bucket as soon as it is full.
int senet_reducer_new(Group *group, Tensor **params, const char *const *names, size_t count, int64_t bucket_bytes,
                      int64_t first_bucket_bytes, int find_unused, int static_graph, Reducer **out) {
  return guarded([&] {
    Tensors list = listed(params, count);
    // Until the first pass has told in which order gradients come, a bucket could wait for one that comes late, and
    // ranks with other unused parameters could begin other operations: one bucket for all, as PyTorch has it.
    std::vector<size_t> limits{std::numeric_limits<int64_t>::max()};
    if (find_unused != 0 && static_graph == 0) {
      limits = {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)};
    }
    const std::vector<bool> sparse(count, false);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(list, limits, sparse));
    std::reverse(buckets.begin(), buckets.end());  // gradients come from the last layer on
    std::unordered_map<size_t, std::string> named;
    for (size_t i = 0; i < count; ++i) named.emplace(i, names[i]);
    // Gradients stay where they were reduced, as views of the buckets: dropped after each update, they need not be
    // copied back. Copies into a bucket are made together.
    auto reducer = std::make_shared<c10d::Reducer>(
        std::move(list), std::move(buckets), group->group, sparse, bucket_bytes, find_unused != 0,
        /*gradient_as_bucket_view=*/true, std::move(named), first_bucket_bytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>{}, /*batched_grad_copy=*/true);
    if (static_graph != 0) reducer->set_static_graph();
    *out = new Reducer{std::move(reducer), find_unused != 0 && static_graph == 0, static_graph != 0};
  });
}

// Before a forward pass whose gradients will be reduced. After the first it orders the buckets as gradients came.
int senet_reducer_prepare_forward(Reducer *reducer) {
  return guarded([&] {
    reducer->reducer->prepare_for_forward();
    reducer->reducer->rebuild_buckets();
  });
}

// Between that forward pass and the backward pass from `loss`.
int senet_reducer_prepare_backward(Reducer *reducer, Tensor *loss) {
  return guarded([&] {
    reducer->reducer->prepare_for_backward(reducer->find_unused ? Tensors{*loss} : Tensors{});
    if (reducer->reduce_late) {
      reducer->reduce_late = false;
      // Callbacks can be queued from within a backward pass only.
      loss->register_hook([reducer = reducer->reducer](const Tensor &grad) {
        torch::autograd::Engine::get_default_engine().queue_callback([reducer] { reducer->delay_all_reduce(); });
        return grad;
      });
    }
  });
}

int senet_reducer_free(Reducer *reducer) {
  return guarded([&] { delete reducer; });
}

}  // extern "C"
