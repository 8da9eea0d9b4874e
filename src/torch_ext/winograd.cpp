// Convolutions of 3x3 with stride 1 and a border of 1, by Winograd's minimal filtering (Lavin and Gray, 2016): a tile
// of 4x4 outputs is made of 36 products for each pair of channels instead of 144. Tiles and filters become matrices
// ("points"), a matrix product for each of the 36 points does the work, and its results become tiles again. On
// channels_last maps, in float32, on CPUs with AVX2 or AVX-512. libtorch's oneDNN has no such convolution.
//
// The gradients are those of this computation: each transform's transpose in its place, with the same 36 products.
//
// Rounding: about three times the error of a direct sum in float32; tests/networks.rs bounds it.

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "border.h"
#include "rows.h"
#include "threads.h"

using at::Tensor;
using senet::most_threads;
using senet::Scratch;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Products and outputs of a tile.
constexpr int64_t kPoints = 36, kOutputs = 16;

// Channels are taken in blocks of so many, or of twice as many.
constexpr int64_t kLeastBlock = 16;

// With fewer tiles the filters' transforms cost more than the products save.
constexpr int64_t kFewestTiles = 8;

// The outputs' tiles of a batch of maps: image by image, row by row.
struct Grid {
  int64_t images, height, width, down, across;

  explicit Grid(const Tensor &map)
      : images(map.size(0)), height(map.size(2)), width(map.size(3)), down((height + 3) / 4), across((width + 3) / 4) {}

  struct Place {
    int64_t image, y, x;
  };

  // The image of a tile, and its first output.
  Place place(int64_t tile) const {
    return {tile / (down * across), tile / across % down * 4, tile % across * 4};
  }

  int64_t per_image() const { return down * across; }
};

using Place = Grid::Place;

struct Matrix {
  const float *values;
  int64_t row_stride, column_stride;
};

// What winograd_kernels.h has for one instruction set.
struct Kernels {
  void (*to_points)(const float *maps, const Grid &, int64_t channels, int64_t first, int64_t last, bool of_gradient,
                    const float *zeros, float *points, int64_t point_stride);
  void (*from_points)(const float *points, int64_t point_stride, int64_t width, const Grid &, int64_t channels,
                      int64_t channel, int64_t first, int64_t last, const float *bias, const float *other, bool relu,
                      float *maps);
  void (*spread_points)(const float *points, int64_t point_stride, int64_t width, const Grid &, int64_t channels,
                        int64_t channel, int64_t first, int64_t last, float *maps);
  void (*filters_to_points)(const float *weight, int64_t depth, int64_t depth_stride, int64_t tap_stride,
                            int64_t channel, int64_t width, float *points);
  void (*filters_from_points)(const float *points, int64_t rows, int64_t width, int64_t channels, float *weight);
  void (*multiply)(const Matrix &a, int64_t rows, int64_t depth, const float *b, int64_t b_stride, int64_t width,
                   float *c, int64_t c_stride, bool add);
};

#define SENET_KERNELS "winograd_kernels.h"
#include "instruction_sets.h"

// A convolution.
struct Task {
  const Kernels &k;
  Grid grid;
  int64_t c_in, c_out, groups;

  int64_t in() const { return c_in / groups; }    // channels of a group
  int64_t out() const { return c_out / groups; }
};

// With few channels in a group all filters' points are small enough to be read again and again: each thread takes some
// tiles through the whole computation at a time. With many, all tiles are turned into points first, and threads share
// the channels. Measured on a core with 512 KB of cache: up to 128 channels the first is faster.
bool is_narrow(const Task &task) { return std::max(task.in(), task.out()) <= 128; }

// What an output goes through: relu?(y + bias + other), where both may be null.
struct Epilogue {
  const float *bias, *other;
  bool relu;
};

// Floats from one of the 36 matrices to the next: an odd number of cache lines. Else all 36 would share the few places
// that a cache has for one address modulo 4096.
int64_t point_stride(int64_t size) { return size / 32 * 32 + 32 + 16; }

// Tiles at a time, so that their points (of so many channels in all) fit into about half of a core's cache; not so few
// that the filters' points are read for nothing.
int64_t narrow_tiles(int64_t channels) {
  constexpr int64_t kCacheBytes = 256 << 10, kStep = 12;
  return std::clamp<int64_t>(kCacheBytes / (kPoints * channels * 4) / kStep * kStep, 2 * kStep, 8 * kStep);
}

// Points of each group's filters, [groups, 36, depth, width], by prepare(group, points).
template <typename Prepare>
Tensor filter_points(const Task &t, Prepare prepare) {
  const int64_t size = kPoints * t.in() * t.out();
  Tensor points = at::empty({t.groups, size}, at::kFloat);
  float *to = points.data_ptr<float>();
  at::parallel_for(0, t.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) prepare(group, to + group * size);
  });
  return points;
}

// Of each group, the products of points [tiles, groups * depth] and filters [groups, 36, depth, width].
void multiply_groups(const Task &t, int64_t tiles, const float *points, int64_t stride, int64_t depth,
                     const float *filters, int64_t width, float *products, int64_t products_stride) {
  for (int64_t group = 0; group < t.groups; ++group) {
    for (int64_t point = 0; point < kPoints; ++point) {
      const Matrix rows{points + point * stride + group * depth, t.groups * depth, 1};
      t.k.multiply(rows, tiles, depth, filters + (group * kPoints + point) * depth * width, width, width,
                   products + point * products_stride + group * width, t.groups * width, false);
    }
  }
}

void convolve_narrow(const Task &t, const float *x, const float *weight, const Epilogue &then, float *y) {
  const int64_t in = t.in(), out = t.out(), at_a_time = narrow_tiles(t.c_in + t.c_out);
  const Tensor filters = filter_points(t, [&](int64_t group, float *to) {
    t.k.filters_to_points(weight, in, t.c_out, in * t.c_out, group * out, out, to);
  });
  const Tensor zeros = at::zeros({t.c_in}, at::kFloat);
  const float *u = filters.const_data_ptr<float>(), *outside = zeros.const_data_ptr<float>();
  const int64_t v_stride = point_stride(at_a_time * t.c_in), m_stride = point_stride(at_a_time * t.c_out);
  const Scratch inputs(kPoints * v_stride), products(kPoints * m_stride);
  at::parallel_for(0, t.grid.images * t.grid.per_image(), at_a_time, [&](int64_t begin, int64_t end) {
    float *v = inputs.mine(), *m = products.mine();
    for (int64_t tile = begin; tile < end; tile += at_a_time) {
      const int64_t tiles = std::min(at_a_time, end - tile);
      t.k.to_points(x, t.grid, t.c_in, tile, tile + tiles, false, outside, v - tile * t.c_in, v_stride);
      multiply_groups(t, tiles, v, v_stride, in, u, out, m, m_stride);
      t.k.from_points(m, m_stride, t.c_out, t.grid, t.c_out, 0, tile, tile + tiles, then.bias, then.other, then.relu,
                      y);
    }
  });
}

// Adds the tiles' part of the gradients of all groups' filters, [groups, 36, C_out / groups, C_in / groups].
void add_filter_gradients(const Task &t, int64_t tiles, const float *outputs, int64_t outputs_stride,
                          const float *inputs, int64_t inputs_stride, float *sums) {
  const int64_t in = t.in(), out = t.out();
  for (int64_t group = 0; group < t.groups; ++group) {
    for (int64_t point = 0; point < kPoints; ++point) {
      const Matrix transposed{outputs + point * outputs_stride + group * out, 1, t.c_out};
      t.k.multiply(transposed, out, tiles, inputs + point * inputs_stride + group * in, t.c_in, in,
                   sums + (group * kPoints + point) * in * out, in, true);
    }
  }
}

// The gradients of all filters from their sums.
void write_filter_gradients(const Task &t, const float *sums, float *dw) {
  const int64_t in = t.in(), out = t.out();
  at::parallel_for(0, t.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      t.k.filters_from_points(sums + group * kPoints * in * out, out, in, in, dw + group * out * 9 * in);
    }
  });
}

void gradients_narrow(const Task &t, const float *x, const float *weight, const float *grad, float *dx, float *dw) {
  const int64_t in = t.in(), out = t.out(), at_a_time = narrow_tiles(2 * t.c_in + t.c_out);
  const Tensor zeros = at::zeros({std::max(t.c_in, t.c_out)}, at::kFloat);
  const float *outside = zeros.const_data_ptr<float>();
  Tensor filters;
  if (dx != nullptr) {
    filters = filter_points(t, [&](int64_t group, float *to) {
      t.k.filters_to_points(weight + group * out * 9 * in, out, 9 * in, in, 0, in, to);
    });
  }
  const Scratch sums(dw != nullptr ? t.groups * kPoints * in * out : 0, t.grid.images);
  sums.clear();
  const int64_t v_stride = point_stride(at_a_time * t.c_in), m_stride = point_stride(at_a_time * t.c_out);
  const Scratch inputs(kPoints * v_stride, t.grid.images), outputs(kPoints * m_stride, t.grid.images);
  // Tiles of an image overlap in dx: an image is one thread's.
  at::parallel_for(0, t.grid.images, 1, [&](int64_t first, int64_t last) {
    float *v = inputs.mine(), *m = outputs.mine();
    const int64_t end = last * t.grid.per_image();
    for (int64_t tile = first * t.grid.per_image(); tile < end; tile += at_a_time) {
      const int64_t tiles = std::min(at_a_time, end - tile);
      t.k.to_points(grad, t.grid, t.c_out, tile, tile + tiles, true, outside, m - tile * t.c_out, m_stride);
      if (dw != nullptr) {
        t.k.to_points(x, t.grid, t.c_in, tile, tile + tiles, false, outside, v - tile * t.c_in, v_stride);
        add_filter_gradients(t, tiles, m, m_stride, v, v_stride, sums.mine());
      }
      if (dx != nullptr) {
        multiply_groups(t, tiles, m, m_stride, out, filters.const_data_ptr<float>(), in, v, v_stride);
        t.k.spread_points(v, v_stride, t.c_in, t.grid, t.c_in, 0, tile, tile + tiles, dx);
      }
    }
  });
  if (dw != nullptr) write_filter_gradients(t, sums.sum(), dw);
}

int64_t block_of(int64_t channels) { return channels % (2 * kLeastBlock) == 0 ? 2 * kLeastBlock : kLeastBlock; }

// Tiles whose products are made and turned into outputs at a time.
constexpr int64_t kTilesAtATime = 48;

// Filters whose gradients are summed at a time.
constexpr int64_t kFiltersAtATime = 64;

// Bytes of points a thread, so that they stay in the last cache until they are used.
constexpr int64_t kPointBytes = 4 << 20;

// Images [first, last) whose tiles are points at the same time.
template <typename Body>
void each_chunk(const Grid &grid, int64_t channels, Body body) {
  const int64_t bytes = kPoints * grid.per_image() * channels * static_cast<int64_t>(sizeof(float));
  const int64_t room = std::max<int64_t>(1, kPointBytes * at::get_num_threads() / bytes);
  const int64_t chunks = (grid.images + room - 1) / room;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    body(grid.images * chunk / chunks, grid.images * (chunk + 1) / chunks);
  }
}

// Points of tiles of `channels` channels: 36 matrices [tiles, channels].
struct Points {
  Tensor values;
  int64_t tiles, channels, stride;

  Points(int64_t tiles, int64_t channels)
      : tiles(tiles), channels(channels), stride(point_stride(tiles * channels)) {
    values = at::empty({kPoints * stride}, at::kFloat);
  }

  float *at(int64_t point) const { return values.data_ptr<float>() + point * stride; }

  // Those of a range of the tiles of `maps`.
  void fill(const Task &t, const float *maps, int64_t first, int64_t last, bool of_gradient) const {
    const Tensor zeros = at::zeros({channels}, at::kFloat);
    const float *outside = zeros.const_data_ptr<float>();
    // The kernel writes where a tile lies in the whole batch.
    float *to = values.data_ptr<float>() - first * channels;
    at::parallel_for(first, last, 8, [&](int64_t begin, int64_t end) {
      t.k.to_points(maps, t.grid, channels, begin, end, of_gradient, outside, to, stride);
    });
  }
};

// Blocks of channels times groups of images or tiles, shared by the threads: enough groups that all have work.
template <typename Body>
void each_task(int64_t blocks, int64_t most_groups, Body body) {
  const int64_t threads = at::get_num_threads();
  const int64_t wanted = std::clamp<int64_t>((2 * threads + blocks - 1) / blocks, 1, most_groups);
  const int64_t groups = blocks % threads == 0 ? 1 : wanted;
  at::parallel_for(0, blocks * groups, 1, [&](int64_t begin, int64_t end) {
    int64_t prepared = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task / groups, group = task % groups;
      body(block, group, groups, block != prepared);
      prepared = block;
    }
  });
}

// The products of tiles [first, last) with a block's filters [36, depth, block], some tiles at a time: take(tile, tiles)
// finds them in `products`, [36, tiles, block].
template <typename Take>
void multiply_block(const Task &t, const Points &points, int64_t first, int64_t last, const float *filters,
                    int64_t block, float *products, Take take) {
  const int64_t depth = points.channels;
  for (int64_t tile = first; tile < last; tile += kTilesAtATime) {
    const int64_t tiles = std::min(kTilesAtATime, last - tile);
    for (int64_t point = 0; point < kPoints; ++point) {
      const Matrix rows{points.at(point) + tile * depth, depth, 1};
      t.k.multiply(rows, tiles, depth, filters + point * depth * block, block, block,
                   products + point * tiles * block, block, false);
    }
    take(tile, tiles);
  }
}

void convolve_wide(const Task &t, const float *x, const float *weight, const Epilogue &then, float *y) {
  const int64_t c_in = t.c_in, c_out = t.c_out, block = block_of(c_out);
  const Scratch filters(kPoints * c_in * block), products(kPoints * kTilesAtATime * block);
  each_chunk(t.grid, c_in, [&](int64_t first_image, int64_t last_image) {
    const int64_t first = first_image * t.grid.per_image(), last = last_image * t.grid.per_image();
    const Points inputs(last - first, c_in);
    inputs.fill(t, x, first, last, false);
    each_task(c_out / block, inputs.tiles, [&](int64_t of, int64_t group, int64_t groups, bool prepare) {
      float *u = filters.mine(), *m = products.mine();
      if (prepare) t.k.filters_to_points(weight, c_in, c_out, c_in * c_out, of * block, block, u);
      const int64_t begin = inputs.tiles * group / groups, end = inputs.tiles * (group + 1) / groups;
      multiply_block(t, inputs, begin, end, u, block, m, [&](int64_t tile, int64_t tiles) {
        t.k.from_points(m, tiles * block, block, t.grid, c_out, of * block, first + tile, first + tile + tiles,
                        then.bias, then.other, then.relu, y);
      });
    });
  });
}

// The gradient of the inputs, made chunk by chunk.
class InputGradient {
 public:
  InputGradient(const Task &t, const float *weight, float *dx)
      : t_(t), weight_(weight), dx_(dx), block_(block_of(t.c_in)), filters_(kPoints * t.c_out * block_),
        products_(kPoints * kTilesAtATime * block_) {}

  // Of the images from `first_image` on, whose outputs' gradients these are.
  void add(int64_t first_image, int64_t images, const Points &outputs) const {
    const int64_t c_in = t_.c_in, c_out = t_.c_out, per_image = t_.grid.per_image(), first = first_image * per_image;
    each_task(c_in / block_, images, [&](int64_t of, int64_t group, int64_t groups, bool prepare) {
      float *u = filters_.mine(), *m = products_.mine();
      if (prepare) t_.k.filters_to_points(weight_, c_out, 9 * c_in, c_in, of * block_, block_, u);
      // Tiles of an image overlap: an image is one task's.
      const int64_t begin = images * group / groups * per_image, end = images * (group + 1) / groups * per_image;
      multiply_block(t_, outputs, begin, end, u, block_, m, [&](int64_t tile, int64_t tiles) {
        t_.k.spread_points(m, tiles * block_, block_, t_.grid, c_in, of * block_, first + tile, first + tile + tiles,
                           dx_);
      });
    });
  }

 private:
  const Task &t_;
  const float *weight_;
  float *dx_;
  int64_t block_;
  Scratch filters_, products_;
};

// The gradient of the filters, to which each chunk adds its part; some filters' and some inputs' at a time.
class FilterGradient {
 public:
  FilterGradient(const Task &t, float *dw)
      : t_(t), dw_(dw), rows_(std::min(kFiltersAtATime, t.c_out)), block_(block_of(t.c_in)),
        blocks_(t.c_in / block_), tasks_((t.c_out + rows_ - 1) / rows_ * blocks_) {}

  // Of one chunk, the `first`, the `last`, both or neither.
  void add(const Points &inputs, const Points &outputs, bool first, bool last) {
    // A thread is through with a task's sums at once, if no other chunk comes.
    const bool alone = first && last;
    const int64_t size = kPoints * rows_ * block_;
    if (first) sums_ = at::empty({alone ? most_threads() : tasks_, size}, at::kFloat);
    at::parallel_for(0, tasks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t row = task / blocks_ * rows_, channel = task % blocks_ * block_;
        const int64_t count = std::min(rows_, t_.c_out - row);
        float *total = sums_.data_ptr<float>() + (alone ? at::get_thread_num() : task) * size;
        for (int64_t point = 0; point < kPoints; ++point) {
          const Matrix transposed{outputs.at(point) + row, 1, t_.c_out};
          t_.k.multiply(transposed, count, inputs.tiles, inputs.at(point) + channel, t_.c_in, block_,
                        total + point * count * block_, block_, !first);
        }
        if (last) t_.k.filters_from_points(total, count, block_, t_.c_in, dw_ + row * 9 * t_.c_in + channel);
      }
    });
  }

 private:
  const Task &t_;
  float *dw_;
  int64_t rows_, block_, blocks_, tasks_;
  Tensor sums_;
};

void gradients_wide(const Task &t, const float *x, const float *weight, const float *grad, float *dx, float *dw) {
  std::optional<InputGradient> of_inputs;
  std::optional<FilterGradient> of_filters;
  if (dx != nullptr) of_inputs.emplace(t, weight, dx);
  if (dw != nullptr) of_filters.emplace(t, dw);
  each_chunk(t.grid, std::max(t.c_in, t.c_out), [&](int64_t first_image, int64_t last_image) {
    const int64_t first = first_image * t.grid.per_image(), last = last_image * t.grid.per_image();
    const Points outputs(last - first, t.c_out);
    outputs.fill(t, grad, first, last, true);
    if (of_inputs) of_inputs->add(first_image, last_image - first_image, outputs);
    if (of_filters) {
      const Points inputs(last - first, t.c_in);
      inputs.fill(t, x, first, last, false);
      of_filters->add(inputs, outputs, first_image == 0, last_image == t.grid.images);
    }
  });
}

// Whether the channels of a group are whole blocks.
bool are_blocks(int64_t channels, int64_t groups) { return groups > 0 && channels % (groups * kLeastBlock) == 0; }

const float *values(const std::optional<Tensor> &tensor) {
  return tensor.has_value() ? tensor->const_data_ptr<float>() : nullptr;
}

// relu?(conv(x) + bias + other) with weights [3, 3, C_in / groups, C_out].
Tensor convolve(const Tensor &x, const Tensor &weight, int64_t groups, const std::optional<Tensor> &bias,
                const std::optional<Tensor> &other, bool relu) {
  TORCH_CHECK(kernels() != nullptr && senet::is_plain_map(x), "not a map for Winograd's convolution");
  TORCH_CHECK(weight.dim() == 4 && weight.size(0) == 3 && weight.size(1) == 3 && weight.is_contiguous() &&
                  weight.scalar_type() == at::kFloat && weight.size(2) * groups == x.size(1) &&
                  are_blocks(x.size(1), groups) && are_blocks(weight.size(3), groups),
              "weights that do not fit the map");
  const int64_t c_out = weight.size(3);
  TORCH_CHECK(weight.device().is_cpu() && (!bias || senet::is_plain_row(*bias, c_out)),
              "a bias that does not fit the weights");
  TORCH_CHECK(!other || (senet::is_plain_map(*other) && other->size(1) == c_out && other->size(0) == x.size(0) &&
                         other->size(2) == x.size(2) && other->size(3) == x.size(3)),
              "maps of different sizes cannot be added");
  const Epilogue then{values(bias), values(other), relu};
  const Task task{*kernels(), Grid(x), x.size(1), weight.size(3), groups};
  TORCH_CHECK(groups == 1 || is_narrow(task), "groups of more channels than one thread takes through at a time");
  Tensor y = at::empty({x.size(0), task.c_out, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
  (is_narrow(task) ? convolve_narrow : convolve_wide)(task, x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                                                      then, y.data_ptr<float>());
  return y;
}

// The gradients of x and of the weights [C_out, C_in / groups, 3, 3] (channels_last), where they are wanted.
std::pair<Tensor, Tensor> gradients(const Tensor &x, const Tensor &weight, int64_t groups, const Tensor &grad,
                                    bool of_x, bool of_weight) {
  const Task task{*kernels(), Grid(x), x.size(1), weight.size(0), groups};
  Tensor dx = of_x ? at::zeros_like(x) : Tensor(), dw = of_weight ? at::empty_like(weight) : Tensor();
  (is_narrow(task) ? gradients_narrow : gradients_wide)(
      task, x.const_data_ptr<float>(), weight.const_data_ptr<float>(), grad.const_data_ptr<float>(),
      of_x ? dx.data_ptr<float>() : nullptr, of_weight ? dw.data_ptr<float>() : nullptr);
  return {dx, dw};
}

// [C_out, C, 3, 3] as [3, 3, C, C_out], in which filters_to_points reads whole vectors of outputs.
Tensor outputs_last(const Tensor &weight) { return weight.permute({2, 3, 1, 0}).contiguous(); }

struct Winograd : torch::autograd::Function<Winograd> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight, const std::optional<Tensor> &bias,
                        int64_t groups) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["groups"] = groups;
    return convolve(x, outputs_last(weight), groups, bias, std::nullopt, false);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor grad = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor weight = saved[1].contiguous(at::MemoryFormat::ChannelsLast);
    const auto [dx, dw] = gradients(saved[0], weight, ctx->saved_data["groups"].toInt(), grad, ctx->needs_input_grad(0),
                                    ctx->needs_input_grad(1));
    return {dx, dw, ctx->saved_data["bias"].toBool() ? grad.sum({0, 2, 3}) : Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// Whether senet_winograd takes a convolution of 3x3, stride 1 and border 1 of `x` to `c_out` channels, and gains by it.
int senet_winograd_suits(const Tensor *x, int64_t c_out, int64_t groups) {
  if (kernels() == nullptr || !senet::is_plain_map(*x) || at::autocast::is_autocast_enabled(at::kCPU)) return 0;
  if (!are_blocks(x->size(1), groups) || !are_blocks(c_out, groups)) return 0;
  const Task task{*kernels(), Grid(*x), x->size(1), c_out, groups};
  const int64_t tiles = task.grid.images * task.grid.per_image();
  const bool full = 2 * task.grid.height * task.grid.width >= kOutputs * task.grid.per_image();
  return full && tiles >= kFewestTiles && (groups == 1 || is_narrow(task)) ? 1 : 0;
}

// conv(x) + bias with weights [C_out, C_in / groups, 3, 3], with gradients where they are recorded. `bias` may be null.
int senet_winograd(const Tensor *x, const Tensor *weight, const Tensor *bias, int64_t groups, Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::Winograd");
    senet::hand_over(Winograd::apply(*x, *weight, senet::optional(bias), groups), out);
  });
}

// Weights for senet_packed_winograd.
int senet_pack_winograd(const Tensor *weight, Tensor **out) {
  return senet::guarded([&] { senet::hand_over(outputs_last(*weight), out); });
}

// relu?(conv(x) + bias + other) without gradients. `other` may be null.
int senet_packed_winograd(const Tensor *x, const Tensor *weight, const Tensor *bias, const Tensor *other,
                          int64_t groups, int relu, Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::Winograd");
    std::optional<Tensor> map = senet::optional(other);
    if (map.has_value()) map = map->contiguous(at::MemoryFormat::ChannelsLast);
    senet::hand_over(convolve(*x, *weight, groups, *bias, map, relu != 0), out);
  });
}

}  // extern "C"
