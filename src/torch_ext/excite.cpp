// Squeeze-and-Excitation with the sum and the ReLU of a residual block as one operator:
//
//   z = mean of u over H, W      s = sigmoid(W2 relu(W1 z + b1) + b2)      y = relu(u * s + shortcut)
//
// Composed of libtorch's operators the backward pass walks over the feature map about eleven times, here five:
// one pass applies the ReLU's mask and sums g * u over each channel, one writes g * s plus the squeeze's gradient.

#include <torch/csrc/autograd/custom_function.h>

#include "rows.h"

using at::Tensor;
using senet::Pieces;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// total[c] += sum of `rows` rows. Four rows at a time: the total is loaded and stored once for them.
SENET_VECTORISED void add_rows(const float *__restrict x, int64_t rows, int64_t channels, float *__restrict total) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4, x += 4 * channels) {
    const float *x1 = x + channels, *x2 = x1 + channels, *x3 = x2 + channels;
    for (int64_t c = 0; c < channels; ++c) total[c] += (x[c] + x1[c]) + (x2[c] + x3[c]);
  }
  for (; row < rows; ++row, x += channels) {
    for (int64_t c = 0; c < channels; ++c) total[c] += x[c];
  }
}

// y = u * s + shortcut, then ReLU.
SENET_VECTORISED void scale_add_relu(const float *u, const float *__restrict s, const float *__restrict shortcut,
                                     int64_t rows, int64_t channels, float *y) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float sum = u[at + c] * s[c] + shortcut[at + c];
      y[at + c] = sum < 0 ? 0 : sum;  // NaN stays NaN
    }
  }
}

// g = grad where y > 0, else 0; total[c] += sum of g * u.
SENET_VECTORISED void mask_and_dot(const float *__restrict grad, const float *__restrict y, const float *__restrict u,
                                   int64_t rows, int64_t channels, float *__restrict g, float *__restrict total) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float masked = y[at + c] <= 0 ? 0 : grad[at + c];
      g[at + c] = masked;
      total[c] += masked * u[at + c];
    }
  }
}

// du = g * s + dz, where dz is the same for all rows.
SENET_VECTORISED void scale_and_spread(const float *__restrict g, const float *__restrict s,
                                       const float *__restrict dz, int64_t rows, int64_t channels,
                                       float *__restrict du) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) du[at + c] = g[at + c] * s[c] + dz[c];
  }
}

Tensor channel_means(const Tensor &u) {
  const Pieces pieces = Pieces::of_samples(u);
  const float *values = u.const_data_ptr<float>();
  const Tensor sums = pieces.sums(1, [&](int64_t first, int64_t rows, float *total) {
    add_rows(values + first, rows, pieces.channels, total);
  });
  return sums.div(static_cast<double>(pieces.rows)).to(at::kFloat);
}

void write_scale_add_relu(const Tensor &u, const Tensor &s, const Tensor &shortcut, const Tensor &y) {
  const Pieces pieces = Pieces::of_samples(u);
  const float *u_values = u.const_data_ptr<float>(), *gate = s.const_data_ptr<float>();
  const float *shortcut_values = shortcut.const_data_ptr<float>();
  float *out = y.data_ptr<float>();
  pieces.each([&](int64_t, int64_t sample, int64_t first, int64_t rows) {
    scale_add_relu(u_values + first, gate + sample * pieces.channels, shortcut_values + first, rows, pieces.channels,
                   out + first);
  });
}

// The two FCs are stored as 1x1 convolutions.
Tensor as_matrix(const Tensor &weight) { return weight.view({weight.size(0), weight.size(1)}); }

struct Gate {
  Tensor z, hidden, s;
};

using Bias = std::optional<Tensor>;

Gate gate(const Tensor &u, const Tensor &w1, const Bias &b1, const Tensor &w2, const Bias &b2) {
  Gate gate;
  gate.z = channel_means(u);
  gate.hidden = at::linear(gate.z, as_matrix(w1), b1).relu_();
  gate.s = at::linear(gate.hidden, as_matrix(w2), b2).sigmoid_();
  // What follows reads a row of floats of each for each row of u.
  TORCH_CHECK(senet::is_plain_row(gate.s, u.size(0) * u.size(1)) && gate.s.size(1) == u.size(1),
              "an SE block of ", gate.s.size(-1), " gates for a map of ", u.size(1), " channels");
  return gate;
}

struct ExciteAddRelu : torch::autograd::Function<ExciteAddRelu> {
  static Tensor forward(AutogradContext *ctx, const Tensor &u, const Tensor &shortcut, const Tensor &w1,
                        const Bias &b1, const Tensor &w2, const Bias &b2) {
    const Gate g = gate(u, w1, b1, w2, b2);
    Tensor y = at::empty_like(u);
    write_scale_add_relu(u, g.s, shortcut, y);
    ctx->save_for_backward({u, y, g.z, g.hidden, g.s, w1, w2});
    ctx->saved_data["biases"] = b1.has_value();
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &u = saved[0], &y = saved[1], &z = saved[2], &hidden = saved[3], &s = saved[4];
    const Tensor w1 = as_matrix(saved[5]), w2 = as_matrix(saved[6]);
    const Tensor grad = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const Pieces pieces = Pieces::of_samples(u);

    Tensor g = at::empty_like(u);
    const float *grad_values = grad.const_data_ptr<float>(), *y_values = y.const_data_ptr<float>();
    const float *u_values = u.const_data_ptr<float>();
    float *g_values = g.data_ptr<float>();
    const Tensor sums = pieces.sums(1, [&](int64_t first, int64_t rows, float *total) {
      mask_and_dot(grad_values + first, y_values + first, u_values + first, rows, pieces.channels, g_values + first,
                   total);
    });
    const Tensor ds = sums.to(at::kFloat);                    // of the gate, [N, C]

    const Tensor d2 = ds * s * (1 - s);                       // before the sigmoid, [N, C]
    const Tensor d1 = d2.mm(w2).mul_(hidden.gt(0));           // before the inner ReLU, [N, C / r]
    const Tensor dz = d1.mm(w1).div_(static_cast<double>(pieces.rows));
    const Tensor dw2 = d2.t().mm(hidden).view_as(saved[6]), dw1 = d1.t().mm(z).view_as(saved[5]);
    const bool biases = ctx->saved_data["biases"].toBool();

    Tensor du = at::empty_like(u);
    float *du_values = du.data_ptr<float>();
    const float *gate_values = s.const_data_ptr<float>(), *dz_values = dz.const_data_ptr<float>();
    pieces.each([&](int64_t, int64_t sample, int64_t first, int64_t rows) {
      const int64_t row = sample * pieces.channels;
      scale_and_spread(g_values + first, gate_values + row, dz_values + row, rows, pieces.channels,
                       du_values + first);
    });
    return {du, g, dw1, biases ? d1.sum(0) : Tensor(), dw2, biases ? d2.sum(0) : Tensor()};
  }
};

// The same from libtorch's operators, for GPUs and other layouts.
Tensor composed(const Tensor &u, const Tensor &shortcut, const Tensor &w1, const Bias &b1, const Tensor &w2,
                const Bias &b2) {
  const Tensor z = u.mean({2, 3}, /*keepdim=*/true);
  const Tensor s = at::conv2d(at::conv2d(z, w1, b1).relu_(), w2, b2).sigmoid_();
  return at::addcmul(shortcut, u, s).relu_();
}

}  // namespace

extern "C" {

// Biases may be null. Without gradients to record, u is overwritten by the result.
int senet_excite_add_relu(const Tensor *u, const Tensor *shortcut, const Tensor *w1, const Tensor *b1,
                          const Tensor *w2, const Tensor *b2, Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::ExciteAddRelu");
    const Bias first = senet::optional(b1), second = senet::optional(b2);
    TORCH_CHECK(u->sizes() == shortcut->sizes(), "a shortcut of ", shortcut->sizes(), " for a map of ", u->sizes());
    if (!senet::is_plain_map(*u) || !senet::is_plain_map(*shortcut)) {
      senet::hand_over(composed(*u, *shortcut, *w1, first, *w2, second), out);
    } else if (at::GradMode::is_enabled()) {
      senet::hand_over(ExciteAddRelu::apply(*u, *shortcut, *w1, first, *w2, second), out);
    } else {
      write_scale_add_relu(*u, gate(*u, *w1, first, *w2, second).s, *shortcut, *u);
      senet::hand_over(*u, out);
    }
  });
}

}  // extern "C"
