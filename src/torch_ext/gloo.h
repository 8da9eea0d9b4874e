// What the headers of c10d name of gloo, which lies inside libtorch_cpu but whose own headers no wheel ships. c10d
// holds all of it through pointers: declarations are enough to lay its classes out as libtorch did. Only the store is
// derived from, so its virtual functions stand in gloo's order; nothing here is ever constructed or called by us.
//
// build.rs has the compiler find this file under the names of gloo's headers, where a libtorch lacks them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

// The store has the functions from has_v2_support() on.
#define GLOO_STORE_HAS_STORE_V2 1

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

class IStore {
 public:
  virtual ~IStore() = default;
  virtual void set(const std::string &key, const std::vector<char> &data) = 0;
  virtual std::vector<char> get(const std::string &key) = 0;
  virtual void wait(const std::vector<std::string> &keys) = 0;
  virtual void wait(const std::vector<std::string> &keys, const std::chrono::milliseconds &timeout) = 0;
};

namespace transport {

class Device;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = default;
};

}  // namespace transport

namespace rendezvous {

class Store : public IStore {
 public:
  virtual bool has_v2_support() = 0;
  virtual std::vector<std::vector<char>> multi_get(const std::vector<std::string> &keys) = 0;
  virtual void multi_set(const std::vector<std::string> &keys, const std::vector<std::vector<char>> &values) = 0;
  virtual void append(const std::string &key, const std::vector<char> &data) = 0;
  virtual int64_t add(const std::string &key, int64_t value) = 0;
};

}  // namespace rendezvous

}  // namespace gloo
