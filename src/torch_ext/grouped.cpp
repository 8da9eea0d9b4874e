// Convolutions of 3x3 with a border of 1 and stride 1 or 2 whose groups have few channels, as ResNeXt's: on
// channels_last maps, in float32, on CPUs with AVX2 or AVX-512. A vector holds the channels of several groups, where it
// is wider than one; each input is spread over its group's lanes as it is read. With 4
// channels a group oneDNN takes three times as long forward, and six times as long for the filters' gradient.

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "border.h"
#include "rows.h"
#include "threads.h"

using at::Tensor;
using senet::Scratch;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// A filter's value, and where its input lies from the output's place.
struct Tap {
  int64_t row, column, index;
};

// Outputs that have the same taps: those at rows and columns first, first + out_step, ... The output (i, j) of them
// reads the inputs at (i * in_step + tap.row, j * in_step + tap.column).
struct Phase {
  int64_t first_row, first_column, out_step, in_step;
  int count;
  std::array<Tap, 9> taps;
};

// One image.
struct Map {
  const float *values;
  int64_t height, width, channels;
};

// What grouped_kernels.h has for one instruction set.
struct Kernels {
  int64_t lanes;
  void (*sum_row)(int64_t group, const Phase &, const Map &x, int64_t row, int64_t count, int64_t channel,
                  const float *filter, const float *bias, bool with_relu, float *y, int64_t y_step);
  void (*add_filter_gradients)(int64_t group, const Map &x, int64_t stride, int64_t row, const float *grad,
                               int64_t count, int64_t channel, float *totals);
};

#define SENET_KERNELS "grouped_kernels.h"
#include "instruction_sets.h"

// Sizes of groups that the kernels have.
bool is_kernels_size(int64_t group) { return group == 4 || group == 8 || group == 16; }

// A convolution, from its input's side.
struct Task {
  int64_t images, height, width, channels, group, stride;

  Task(const Tensor &x, int64_t group, int64_t stride)
      : images(x.size(0)), height(x.size(2)), width(x.size(3)), channels(x.size(1)), group(group), stride(stride) {}

  int64_t out_height() const { return (height - 1) / stride + 1; }
  int64_t out_width() const { return (width - 1) / stride + 1; }

  Map input(const float *maps, int64_t image) const {
    return {maps + image * height * width * channels, height, width, channels};
  }

  Map output(const float *maps, int64_t image) const {
    return {maps + image * out_height() * out_width() * channels, out_height(), out_width(), channels};
  }
};

// All outputs have all taps.
Phase forward_phase(int64_t stride) {
  Phase phase{0, 0, 1, stride, 9, {}};
  for (int64_t i = 0; i < 9; ++i) phase.taps[i] = {i / 3 - 1, i % 3 - 1, i};
  return phase;
}

// The gradient of the input (r, c) is the sum of the taps (i, j) at those outputs (y, x) that read it:
// r = y * stride + i - 1, and so for the columns. Which taps there are depends on r and c modulo the stride.
std::vector<Phase> backward_phases(int64_t stride) {
  std::vector<Phase> phases;
  for (int64_t first = 0; first < stride * stride; ++first) {
    Phase phase{first / stride, first % stride, stride, 1, 0, {}};
    for (int64_t i = 0; i < 9; ++i) {
      const int64_t row = phase.first_row + 1 - i / 3, column = phase.first_column + 1 - i % 3;
      if (row % stride == 0 && column % stride == 0) {
        phase.taps[phase.count++] = {row / stride, column / stride, i};
      }
    }
    phases.push_back(phase);
  }
  return phases;
}

// Filters by vectors of outputs, [C / lanes, 9, group, lanes], from value(output, input of the group, tap).
template <typename Value>
Tensor pack(int64_t channels, int64_t group, Value value) {
  const int64_t lanes = kernels()->lanes;
  Tensor packed = at::empty({channels / lanes, 9, group, lanes}, at::kFloat);
  float *to = packed.data_ptr<float>();
  for (int64_t block = 0; block < channels; block += lanes) {
    for (int64_t tap = 0; tap < 9; ++tap) {
      for (int64_t input = 0; input < group; ++input) {
        for (int64_t lane = 0; lane < lanes; ++lane) *to++ = value(block + lane, input, tap);
      }
    }
  }
  return packed;
}

// Of what the kernels can compute.
bool is_possible(int64_t channels, int64_t group) {
  return kernels() != nullptr && is_kernels_size(group) && channels % kernels()->lanes == 0 && channels % group == 0;
}

void check_weights(const Tensor &weight) {
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.device().is_cpu() &&
                  weight.scalar_type() == at::kFloat && is_possible(weight.size(0), weight.size(1)),
              "not weights of a convolution by groups");
}

// Of weights [C, group, 3, 3], as they are.
Tensor pack_forward(const Tensor &weight) {
  check_weights(weight);
  const auto values = weight.accessor<float, 4>();
  return pack(weight.size(0), weight.size(1), [&](int64_t output, int64_t input, int64_t tap) {
    return values[output][input][tap / 3][tap % 3];
  });
}

// The same with inputs and outputs of each group exchanged.
Tensor pack_backward(const Tensor &weight) {
  check_weights(weight);
  const auto values = weight.accessor<float, 4>();
  const int64_t group = weight.size(1);
  return pack(weight.size(0), group, [&](int64_t output, int64_t input, int64_t tap) {
    return values[output / group * group + input][output % group][tap / 3][tap % 3];
  });
}

// Memory that the next row will use first. The kernels walk through a row once for each vector of channels, in steps
// that the processor does not foresee: fetched in order meanwhile, a row of little arithmetic takes half the time.
struct Ahead {
  const float *values;
  int64_t size;

  Ahead(const float *values, int64_t size) : values(values), size(size) {}

  // Some rows of a map, where it has them.
  Ahead(const Map &map, int64_t row, int64_t rows)
      : Ahead(map.values + row * map.width * map.channels,
              std::clamp<int64_t>(map.height - row, 0, rows) * map.width * map.channels) {}

  // The share of the channels [channel, channel + lanes).
  template <bool ToWrite>
  void fetch(int64_t channel, int64_t channels, int64_t lanes) const {
    constexpr int64_t kLine = 16, kIntoSecondCache = 2;
    const int64_t end = size * (channel + lanes) / channels;
    for (int64_t i = size * channel / channels; i < end; i += kLine) {
      __builtin_prefetch(values + i, ToWrite, kIntoSecondCache);
    }
  }
};

// Writes the outputs of a phase, images of height x width, from maps that `map` finds: relu?(sums + bias).
template <typename MapOf>
void sum_phase(const Phase &phase, const Task &task, MapOf map, int64_t height, int64_t width, const float *filters,
               const float *bias, bool relu, float *y) {
  const Kernels &k = *kernels();
  const auto count = [&](int64_t size, int64_t first) { return (size - first + phase.out_step - 1) / phase.out_step; };
  const int64_t rows = count(height, phase.first_row), columns = count(width, phase.first_column);
  const int64_t filter_size = 9 * task.group * k.lanes, channels = task.channels;
  at::parallel_for(0, task.images * rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / rows, row = i % rows;
      const Map x = map(image);
      const int64_t out_row = phase.first_row + row * phase.out_step;
      float *to = y + ((image * height + out_row) * width + phase.first_column) * channels;
      const bool more = i + 1 < end && row + 1 < rows;
      const Ahead inputs(x, row * phase.in_step + 2, more ? phase.in_step : 0);
      const Ahead outputs(to + phase.out_step * width * channels, more ? columns * phase.out_step * channels : 0);
      for (int64_t channel = 0; channel < channels; channel += k.lanes) {
        inputs.fetch<false>(channel, channels, k.lanes);
        outputs.fetch<true>(channel, channels, k.lanes);
        const float *filter = filters + channel / k.lanes * filter_size;
        k.sum_row(task.group, phase, x, row, columns, channel, filter, bias, relu, to, phase.out_step * channels);
      }
    }
  });
}

// relu?(conv(x) + bias) with packed filters.
Tensor convolve(const Tensor &x, const Tensor &filters, int64_t stride, const std::optional<Tensor> &bias, bool relu) {
  TORCH_CHECK(senet::is_plain_map(x) && (stride == 1 || stride == 2), "not a map for a convolution by groups");
  TORCH_CHECK(filters.dim() == 4 && filters.size(0) * filters.size(3) == x.size(1) && filters.size(1) == 9 &&
                  is_possible(x.size(1), filters.size(2)) && filters.is_contiguous(),
              "filters that do not fit the map");
  TORCH_CHECK(filters.device().is_cpu() && (!bias || senet::is_plain_row(*bias, x.size(1))), "a bias that does not fit the map");
  const Task task(x, filters.size(2), stride);
  const int64_t height = task.out_height(), width = task.out_width();
  Tensor y = at::empty({task.images, task.channels, height, width}, x.options(), at::MemoryFormat::ChannelsLast);
  const float *values = x.const_data_ptr<float>();
  sum_phase(forward_phase(stride), task, [&](int64_t image) { return task.input(values, image); }, height, width,
            filters.const_data_ptr<float>(), bias ? bias->const_data_ptr<float>() : nullptr, relu,
            y.data_ptr<float>());
  return y;
}

Tensor input_gradient(const Task &task, const Tensor &x, const Tensor &weight, const Tensor &grad) {
  const Tensor filters = pack_backward(weight);
  const float *values = grad.const_data_ptr<float>();
  Tensor dx = at::empty_like(x);
  for (const Phase &phase : backward_phases(task.stride)) {
    sum_phase(phase, task, [&](int64_t image) { return task.output(values, image); }, task.height, task.width,
              filters.const_data_ptr<float>(), nullptr, false, dx.data_ptr<float>());
  }
  return dx;
}

Tensor filter_gradient(const Task &task, const Tensor &x, const Tensor &weight, const Tensor &grad) {
  const Kernels &k = *kernels();
  const int64_t rows = task.out_height(), width = task.out_width(), group = task.group, lanes = k.lanes;
  const int64_t filter_size = 9 * group * lanes;
  const float *x_values = x.const_data_ptr<float>(), *grad_values = grad.const_data_ptr<float>();
  const Scratch sums(task.channels * 9 * group);
  sums.clear();
  at::parallel_for(0, task.images * rows, 1, [&](int64_t begin, int64_t end) {
    float *mine = sums.mine();
    for (int64_t i = begin; i < end; ++i) {
      const Map map = task.input(x_values, i / rows);
      const float *grad_row = grad_values + i * width * task.channels;
      const Ahead inputs(map, i % rows * task.stride + 2, task.stride);
      const Ahead grads(grad_row + width * task.channels, i + 1 < end ? width * task.channels : 0);
      for (int64_t channel = 0; channel < task.channels; channel += lanes) {
        inputs.fetch<false>(channel, task.channels, lanes);
        grads.fetch<false>(channel, task.channels, lanes);
        k.add_filter_gradients(group, map, task.stride, i % rows, grad_row, width, channel,
                               mine + channel / lanes * filter_size);
      }
    }
  });
  const float *from = sums.sum();
  Tensor dw = at::empty_like(weight);
  auto to = dw.accessor<float, 4>();
  for (int64_t output = 0; output < task.channels; ++output) {
    const float *of_output = from + output / lanes * filter_size + output % lanes;
    for (int64_t tap = 0; tap < 9; ++tap) {
      for (int64_t input = 0; input < group; ++input) {
        to[output][input][tap / 3][tap % 3] = of_output[(tap * group + input) * lanes];
      }
    }
  }
  return dw;
}

struct Grouped : torch::autograd::Function<Grouped> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &weight, const std::optional<Tensor> &bias,
                        int64_t stride) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["stride"] = stride;
    return convolve(x, pack_forward(weight), stride, bias, false);
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], grad = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Task task(x, weight.size(1), ctx->saved_data["stride"].toInt());
    const Tensor dx = ctx->needs_input_grad(0) ? input_gradient(task, x, weight, grad) : Tensor();
    const Tensor dw = ctx->needs_input_grad(1) ? filter_gradient(task, x, weight, grad) : Tensor();
    return {dx, dw, ctx->saved_data["bias"].toBool() ? grad.sum({0, 2, 3}) : Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// Whether senet_grouped takes a convolution of 3x3 and border 1 of `x` to as many channels.
int senet_grouped_suits(const Tensor *x, int64_t groups, int64_t stride) {
  if (!senet::is_plain_map(*x) || at::autocast::is_autocast_enabled(at::kCPU)) return 0;
  if (groups < 2 || x->size(1) % groups != 0 || (stride != 1 && stride != 2)) return 0;
  return is_possible(x->size(1), x->size(1) / groups) ? 1 : 0;
}

// conv(x) + bias with weights [C, C / groups, 3, 3], with gradients where they are recorded. `bias` may be null.
int senet_grouped(const Tensor *x, const Tensor *weight, const Tensor *bias, int64_t stride, Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::Grouped");
    senet::hand_over(Grouped::apply(*x, *weight, senet::optional(bias), stride), out);
  });
}

// Filters for senet_packed_grouped, from weights.
int senet_pack_grouped(const Tensor *weight, Tensor **out) {
  return senet::guarded([&] { senet::hand_over(pack_forward(*weight), out); });
}

// relu?(conv(x) + bias) without gradients.
int senet_packed_grouped(const Tensor *x, const Tensor *filters, const Tensor *bias, int64_t stride, int relu,
                         Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::Grouped");
    senet::hand_over(convolve(*x, *filters, stride, *bias, relu != 0), out);
  });
}

}  // extern "C"
