// Batch normalisation in training with the ReLU behind it as one operator; its statistics are those of this process's
// batch, or, where there are peers, of the batches of all of them together.
//
// libtorch walks over the feature map five times forward and eight times backward (the ReLU on its own, its mask
// written out, ...); here it is three and five: the mask is computed again from x, which costs less than reading it.

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "group.h"
#include "rows.h"

using Peers = c10::intrusive_ptr<c10d::ProcessGroup>;
using at::Tensor;
using senet::Pieces;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// total[c] += sum of d, total[channels + c] += sum of d * d, with d = x - shift. The shift, some value of the channel,
// keeps the variance exact where the mean is large beside the deviation.
SENET_VECTORISED void add_moments(const float *__restrict x, const float *__restrict shift, int64_t rows,
                                  int64_t channels, float *__restrict total) {
  float *__restrict squares = total + channels;
  int64_t row = 0;
  for (; row + 2 <= rows; row += 2, x += 2 * channels) {
    const float *next = x + channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float d0 = x[c] - shift[c], d1 = next[c] - shift[c];
      total[c] += d0 + d1;
      squares[c] += d0 * d0 + d1 * d1;
    }
  }
  for (; row < rows; ++row, x += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const float d = x[c] - shift[c];
      total[c] += d;
      squares[c] += d * d;
    }
  }
}

// y = a * x + b, then ReLU if asked for.
SENET_VECTORISED void affine(const float *__restrict x, const float *__restrict a, const float *__restrict b,
                             int64_t rows, int64_t channels, bool relu, float *__restrict y) {
  const float floor = relu ? 0 : -INFINITY;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float value = x[at + c] * a[c] + b[c];
      y[at + c] = value < floor ? floor : value;  // NaN stays NaN
    }
  }
}

// With g = grad where the output was above its floor: total[c] += sum of g, total[channels + c] += sum of g * (x - mean).
SENET_VECTORISED void add_gradient_moments(const float *__restrict grad, const float *__restrict x,
                                           const float *__restrict a, const float *__restrict b,
                                           const float *__restrict mean, int64_t rows, int64_t channels, bool relu,
                                           float *__restrict total) {
  float *__restrict products = total + channels;
  const float floor = relu ? 0 : -INFINITY;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float g = x[at + c] * a[c] + b[c] <= floor ? 0 : grad[at + c];
      total[c] += g;
      products[c] += g * (x[at + c] - mean[c]);
    }
  }
}

// dx = a * g + c1 * x + c0.
SENET_VECTORISED void write_gradient(const float *__restrict grad, const float *__restrict x,
                                     const float *__restrict a, const float *__restrict b,
                                     const float *__restrict c1, const float *__restrict c0, int64_t rows,
                                     int64_t channels, bool relu, float *__restrict dx) {
  const float floor = relu ? 0 : -INFINITY;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float g = x[at + c] * a[c] + b[c] <= floor ? 0 : grad[at + c];
      dx[at + c] = a[c] * g + c1[c] * x[at + c] + c0[c];
    }
  }
}

// Replaces `sums` by the sums over all processes, where there are others.
void add_peers(const Peers &peers, Tensor &sums) {
  if (!peers) return;
  std::vector<Tensor> list{sums};
  peers->allreduce(list)->wait();
}

// What a backward pass needs of them.
void save_peers(AutogradContext *ctx, const Peers &peers) {
  if (peers) ctx->saved_data["peers"] = c10::IValue::make_capsule(peers);
}

Peers saved_peers(AutogradContext *ctx) {
  const auto found = ctx->saved_data.find("peers");
  if (found == ctx->saved_data.end()) return {};
  return c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(found->second.toCapsule());
}

// Statistics of C channels over all processes: float64 [2C + 1] of (sum, sum of squares, values), each rank's its own
// before. In float64 nothing is lost that the float32 values had.
struct Moments {
  Tensor packed;
  int64_t channels;

  Moments(int64_t channels, at::Device device)
      : packed(at::empty({2 * channels + 1}, at::device(device).dtype(at::kDouble))), channels(channels) {}

  Tensor first() const { return packed.narrow(0, 0, channels); }
  Tensor second() const { return packed.narrow(0, channels, channels); }
  Tensor count() const { return packed.narrow(0, 2 * channels, 1); }
};

// Rounding takes a variance below zero. NaN stays NaN, which std::max(0.0, value) would make 0.
double not_negative(double value) { return value < 0 ? 0 : value; }

struct BatchNormRelu : torch::autograd::Function<BatchNormRelu> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &gamma, const Tensor &beta,
                        const Tensor &running_mean, const Tensor &running_var, double momentum, double epsilon,
                        bool relu, const Peers &peers) {
    const Pieces pieces = Pieces::of_all(x);
    const int64_t channels = pieces.channels;
    const float *values = x.const_data_ptr<float>();
    const Tensor moments = pieces.sums(2, [&](int64_t first, int64_t rows, float *total) {
      add_moments(values + first, values, rows, channels, total);  // the first row is the shift
    });

    Tensor mean = at::empty({channels}, x.options()), inverse = at::empty_like(mean);
    Tensor a = at::empty_like(mean), b = at::empty_like(mean);
    const Tensor gamma_c = gamma.contiguous(), beta_c = beta.contiguous();
    const double *sums = moments.const_data_ptr<double>();
    Moments all(channels, at::kCPU);
    double *first = all.packed.data_ptr<double>(), *second = first + channels;
    const double rows = pieces.rows;
    for (int64_t c = 0; c < channels; ++c) {
      const double offset = sums[c] / rows, m = values[c] + offset;
      first[c] = rows * m;
      second[c] = rows * (not_negative(sums[channels + c] / rows - offset * offset) + (peers ? m * m : 0));
    }
    first[2 * channels] = rows;
    add_peers(peers, all.packed);
    const double count = first[2 * channels];
    float *old_mean = running_mean.data_ptr<float>(), *old_var = running_var.data_ptr<float>();
    for (int64_t c = 0; c < channels; ++c) {
      const double m = first[c] / count;
      const double variance = not_negative(second[c] / count - (peers ? m * m : 0));
      const double inverse_c = 1 / std::sqrt(variance + epsilon);
      const double a_c = gamma_c.const_data_ptr<float>()[c] * inverse_c;
      mean.data_ptr<float>()[c] = static_cast<float>(m);
      inverse.data_ptr<float>()[c] = static_cast<float>(inverse_c);
      a.data_ptr<float>()[c] = static_cast<float>(a_c);
      b.data_ptr<float>()[c] = static_cast<float>(beta_c.const_data_ptr<float>()[c] - m * a_c);
      const double unbiased = variance * count / std::max(count - 1, 1.0);
      old_mean[c] = static_cast<float>((1 - momentum) * old_mean[c] + momentum * m);
      old_var[c] = static_cast<float>((1 - momentum) * old_var[c] + momentum * unbiased);
    }

    Tensor y = at::empty_like(x);
    float *out = y.data_ptr<float>();
    const float *a_values = a.const_data_ptr<float>(), *b_values = b.const_data_ptr<float>();
    pieces.each([&](int64_t, int64_t, int64_t first, int64_t rows) {
      affine(values + first, a_values, b_values, rows, channels, relu, out + first);
    });
    ctx->save_for_backward({x, mean, inverse, a, b});
    ctx->saved_data["relu"] = relu;
    ctx->saved_data["count"] = count;
    save_peers(ctx, peers);
    return y;
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0];
    const Tensor grad = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    const float *mean = saved[1].const_data_ptr<float>(), *inverse = saved[2].const_data_ptr<float>();
    const float *a = saved[3].const_data_ptr<float>(), *b = saved[4].const_data_ptr<float>();
    const bool relu = ctx->saved_data["relu"].toBool();
    const double count = ctx->saved_data["count"].toDouble();
    const Pieces pieces = Pieces::of_all(x);
    const int64_t channels = pieces.channels;
    const float *values = x.const_data_ptr<float>(), *grad_values = grad.const_data_ptr<float>();
    const Tensor own = pieces.sums(2, [&](int64_t first, int64_t rows, float *total) {
      add_gradient_moments(grad_values + first, values + first, a, b, mean, rows, channels, relu, total);
    });

    Tensor dgamma = at::empty({channels}, x.options()), dbeta = at::empty_like(dgamma);
    std::vector<float> c1(channels), c0(channels);
    // Gamma's and beta's gradients are this process's: they are reduced with all others.
    const double *own_sums = own.const_data_ptr<double>();
    for (int64_t c = 0; c < channels; ++c) {
      dgamma.data_ptr<float>()[c] = static_cast<float>(own_sums[channels + c] * inverse[c]);
      dbeta.data_ptr<float>()[c] = static_cast<float>(own_sums[c]);
    }
    Tensor all = own.reshape({-1});
    add_peers(saved_peers(ctx), all);
    const double *sums = all.const_data_ptr<double>();
    for (int64_t c = 0; c < channels; ++c) {
      const double sum = sums[c], product = sums[channels + c], inverse_c = inverse[c];
      const double slope = -a[c] * inverse_c * inverse_c * product / count;
      c1[c] = static_cast<float>(slope);
      c0[c] = static_cast<float>(-a[c] * sum / count - slope * mean[c]);
    }

    Tensor dx = at::empty_like(x);
    float *out = dx.data_ptr<float>();
    pieces.each([&](int64_t, int64_t, int64_t first, int64_t rows) {
      write_gradient(grad_values + first, values + first, a, b, c1.data(), c0.data(), rows, channels, relu,
                     out + first);
    });
    return {dx, dgamma, dbeta, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// The same with the statistics of all peers, by libtorch's operators: for other kinds, layouts and devices. Without
// ReLU.
struct PeerBatchNorm : torch::autograd::Function<PeerBatchNorm> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, const Tensor &gamma, const Tensor &beta,
                        const Tensor &running_mean, const Tensor &running_var, double momentum, double epsilon,
                        const Peers &peers) {
    const int64_t channels = x.size(1);
    const double rows = static_cast<double>(x.numel()) / static_cast<double>(channels);
    auto [own_variance, own_mean] = at::var_mean(work(x), at::IntArrayRef{0, 2, 3}, /*correction=*/0);
    own_mean = own_mean.to(at::kDouble);
    Moments all(channels, x.device());
    all.first().copy_(own_mean * rows);
    all.second().copy_((own_variance.to(at::kDouble) + own_mean * own_mean) * rows);
    all.count().fill_(rows);
    add_peers(peers, all.packed);
    const Tensor count = all.count();
    const Tensor mean = all.first() / count;
    const Tensor variance = (all.second() / count - mean * mean).clamp_min_(0);
    const Tensor inverse = (variance + epsilon).rsqrt_();
    running_mean.mul_(1 - momentum).add_(mean, momentum);
    running_var.mul_(1 - momentum).add_(variance * (count / (count - 1).clamp_min(1)), momentum);
    ctx->save_for_backward({x, gamma, mean, inverse, count});
    save_peers(ctx, peers);
    const Tensor a = gamma.to(at::kDouble) * inverse;
    return (work(x) * shaped(a, x) + shaped(beta.to(at::kDouble) - mean * a, x)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext *ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &gamma = saved[1], &mean = saved[2], &inverse = saved[3], &count = saved[4];
    const Tensor grad = work(grads[0]), normal = (work(x) - shaped(mean, x)) * shaped(inverse, x);
    const at::IntArrayRef dims{0, 2, 3};
    Tensor sums = at::stack({grad.sum(dims, false, at::kDouble), (grad * normal).sum(dims, false, at::kDouble)});
    const Tensor dbeta = sums[0].to(gamma.scalar_type(), false, true);
    const Tensor dgamma = sums[1].to(gamma.scalar_type(), false, true);
    add_peers(saved_peers(ctx), sums);
    const Tensor a = gamma.to(at::kDouble) * inverse;
    const Tensor dx = shaped(a, x) * (grad - shaped(sums[0] / count, x) - normal * shaped(sums[1] / count, x));
    return {dx.to(x.scalar_type()), dgamma, dbeta, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  // float32 at least.
  static Tensor work(const Tensor &x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); }

  // [C] for maps like x.
  static Tensor shaped(const Tensor &values, const Tensor &x) {
    return values.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).view({1, -1, 1, 1});
  }
};

}  // namespace

extern "C" {

// relu?(batch_norm(x)) with the statistics of the batch, or those of all peers' batches, which also move the running
// ones. `peers` may be null.
int senet_batch_norm_relu(const Tensor *x, const Tensor *gamma, const Tensor *beta, const Tensor *running_mean,
                          const Tensor *running_var, double momentum, double epsilon, int relu,
                          const senet::Group *group, Tensor **out) {
  return senet::guarded([&] {
    const senet::Recorded recorded("senet::BatchNormRelu");
    const Peers peers = group == nullptr ? Peers() : group->group;
    if (senet::is_plain_map(*x) && gamma->scalar_type() == at::kFloat) {
      for (const Tensor *values : {gamma, beta, running_mean, running_var}) {
        TORCH_CHECK(senet::is_plain_row(*values, x->size(1)), "batch normalisation of ", values->sizes(), " ",
                    values->scalar_type(), " values for a map of ", x->size(1), " channels");
      }
      senet::hand_over(
          BatchNormRelu::apply(*x, *gamma, *beta, *running_mean, *running_var, momentum, epsilon, relu != 0, peers),
          out);
      return;
    }
    Tensor y = peers ? PeerBatchNorm::apply(*x, *gamma, *beta, *running_mean, *running_var, momentum, epsilon, peers)
                     : at::batch_norm(*x, *gamma, *beta, *running_mean, *running_var, /*training=*/true, momentum,
                                      epsilon, /*cudnn_enabled=*/true);
    senet::hand_over(relu != 0 ? y.relu_() : y, out);
  });
}

}  // extern "C"
