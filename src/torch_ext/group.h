// A group of processes, as Rust holds it.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace senet {

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

}  // namespace senet
