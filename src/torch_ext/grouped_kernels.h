// The inner loops of grouped.cpp, for vectors of SENET_LANES floats (instruction_sets.h). A vector holds the outputs of
// several groups of Group channels, or some of one group's.

// Neighbouring outputs of a row that are summed at a time: with four filters and one input, as many sums as AVX2 has
// registers for.
constexpr int kOutputsAtATime = 8;

// Channels of a group that are taken at a time; written out below.
constexpr int kInputsAtATime = 4;

typedef int Lanes __attribute__((vector_size(SENET_LANES * sizeof(int))));

// For each lane the lane of its group's channel J.
template <int Group, int J, int... Lane>
constexpr Lanes lanes_of(std::integer_sequence<int, Lane...>) {
  return Lanes{(Lane / Group * Group + J)...};
}

// For each lane its group's channel J; `first` points to the first channel of the vector's first group.
template <int Group, int J>
SENET_INLINE auto input(const float *first) {
  if constexpr (Group < SENET_LANES) {
    return __builtin_shuffle(load(first), lanes_of<Group, J>(std::make_integer_sequence<int, SENET_LANES>{}));
  } else {
    return first[J];
  }
}

// sums[i] += the filter's value at one tap x the input at inputs + i * step, for i in [begin, end).
template <int Group, bool All, int First = 0>
SENET_INLINE void add_tap(const float *inputs, int64_t step, const float *filter, int64_t begin, int64_t end,
                          Vector *sums) {
  if constexpr (First < Group) {
    const Vector f0 = load(filter + First * SENET_LANES), f1 = load(filter + (First + 1) * SENET_LANES);
    const Vector f2 = load(filter + (First + 2) * SENET_LANES), f3 = load(filter + (First + 3) * SENET_LANES);
#pragma GCC unroll 8
    for (int i = 0; i < kOutputsAtATime; ++i) {
      if (All || (i >= begin && i < end)) {
        const float *from = inputs + i * step;
        sums[i] += input<Group, First>(from) * f0;
        sums[i] += input<Group, First + 1>(from) * f1;
        sums[i] += input<Group, First + 2>(from) * f2;
        sums[i] += input<Group, First + 3>(from) * f3;
      }
    }
    add_tap<Group, All, First + kInputsAtATime>(inputs, step, filter, begin, end, sums);
  }
}

// One row of a phase's outputs, in the channels of a vector from `channel` on: relu?(sum over the taps + bias).
template <int Group>
SENET_INLINE void sum_row_of(const Phase &phase, const Map &x, int64_t row, int64_t count, int64_t channel,
                             const float *filter, const float *bias, bool with_relu, float *y, int64_t y_step) {
  const int64_t step = phase.in_step * x.channels, first_input = channel / Group * Group;
  const Vector shift = bias == nullptr ? Vector{} : load(bias + channel);
  for (int64_t first = 0; first < count; first += kOutputsAtATime) {
    Vector sums[kOutputsAtATime];
#pragma GCC unroll 8
    for (int i = 0; i < kOutputsAtATime; ++i) sums[i] = shift;
    const int64_t outputs = std::min<int64_t>(kOutputsAtATime, count - first);
    for (int t = 0; t < phase.count; ++t) {
      const Tap &tap = phase.taps[t];
      const int64_t in_row = row * phase.in_step + tap.row, column = first * phase.in_step + tap.column;
      if (in_row < 0 || in_row >= x.height) continue;
      // Outputs [begin, end) have their input inside the row.
      const int64_t begin = column < 0 ? (phase.in_step - 1 - column) / phase.in_step : 0;
      const int64_t end = std::min(outputs, (x.width - 1 - column + phase.in_step) / phase.in_step);
      const float *inputs = x.values + (in_row * x.width + column) * x.channels + first_input;
      const float *at_tap = filter + tap.index * Group * SENET_LANES;
      if (begin == 0 && end == kOutputsAtATime) {
        add_tap<Group, true>(inputs, step, at_tap, begin, end, sums);
      } else {
        add_tap<Group, false>(inputs, step, at_tap, begin, end, sums);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kOutputsAtATime; ++i) {
      if (i < outputs) store(y + (first + i) * y_step + channel, with_relu ? relu(sums[i]) : sums[i]);
    }
  }
}

// sums[t][i] += g x the group's channel First + i of the pixel t, for the pixels [begin, end) of three.
template <int Group, int First>
SENET_INLINE void add_products(const float *inputs, int64_t channels, Vector g, int64_t begin, int64_t end,
                               Vector (*sums)[kInputsAtATime]) {
#pragma GCC unroll 3
  for (int t = 0; t < 3; ++t) {
    if (t < begin || t >= end) continue;
    const float *from = inputs + t * channels;
    sums[t][0] += input<Group, First>(from) * g;
    sums[t][1] += input<Group, First + 1>(from) * g;
    sums[t][2] += input<Group, First + 2>(from) * g;
    sums[t][3] += input<Group, First + 3>(from) * g;
  }
}

// Adds a row of gradients' part to the gradients of a row of three taps, totals [3][Group][lanes].
template <int Group, int First = 0>
SENET_INLINE void add_row_of_taps(const float *inputs, const Map &x, int64_t stride, const float *grad, int64_t count,
                                  float *totals) {
  if constexpr (First < Group) {
    Vector sums[3][kInputsAtATime] = {};
    for (int64_t i = 0; i < count; ++i) {
      const int64_t column = i * stride - 1;
      const float *from = inputs + column * x.channels;
      const Vector g = load(grad + i * x.channels);
      if (column >= 0 && column + 3 <= x.width) {
        add_products<Group, First>(from, x.channels, g, 0, 3, sums);
      } else {
        add_products<Group, First>(from, x.channels, g, column < 0 ? 1 : 0, std::min<int64_t>(3, x.width - column),
                                   sums);
      }
    }
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t) {
#pragma GCC unroll 4
      for (int i = 0; i < kInputsAtATime; ++i) {
        float *total = totals + (t * Group + First + i) * SENET_LANES;
        store(total, load(total) + sums[t][i]);
      }
    }
    add_row_of_taps<Group, First + kInputsAtATime>(inputs, x, stride, grad, count, totals);
  }
}

// Adds the part of one row of gradients to the gradients of the filters of a vector's outputs, totals [9][Group][lanes].
template <int Group>
SENET_INLINE void add_filter_gradients_of(const Map &x, int64_t stride, int64_t row, const float *grad, int64_t count,
                                          int64_t channel, float *totals) {
  for (int64_t tap = 0; tap < 3; ++tap) {
    const int64_t in_row = row * stride + tap - 1;
    if (in_row < 0 || in_row >= x.height) continue;
    add_row_of_taps<Group>(x.values + in_row * x.width * x.channels + channel / Group * Group, x, stride,
                           grad + channel, count, totals + tap * 3 * Group * SENET_LANES);
  }
}

// The functions above for a size of groups that is known when the program runs: 4, 8 or 16.

void sum_row(int64_t group, const Phase &phase, const Map &x, int64_t row, int64_t count, int64_t channel,
             const float *filter, const float *bias, bool with_relu, float *y, int64_t y_step) {
  switch (group) {
    case 4: return sum_row_of<4>(phase, x, row, count, channel, filter, bias, with_relu, y, y_step);
    case 8: return sum_row_of<8>(phase, x, row, count, channel, filter, bias, with_relu, y, y_step);
    case 16: return sum_row_of<16>(phase, x, row, count, channel, filter, bias, with_relu, y, y_step);
  }
}

void add_filter_gradients(int64_t group, const Map &x, int64_t stride, int64_t row, const float *grad, int64_t count,
                          int64_t channel, float *totals) {
  switch (group) {
    case 4: return add_filter_gradients_of<4>(x, stride, row, grad, count, channel, totals);
    case 8: return add_filter_gradients_of<8>(x, stride, row, grad, count, channel, totals);
    case 16: return add_filter_gradients_of<16>(x, stride, row, grad, count, channel, totals);
  }
}

constexpr Kernels kKernels{SENET_LANES, sum_row, add_filter_gradients};
