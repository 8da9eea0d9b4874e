// One update of all parameters of a group, by fused and multi-tensor operators: the optimizers, clipping, averages.
//
// Parameters without a gradient are left alone. A gradient is its update's to overwrite: it is dropped afterwards.
// Nothing here waits for the device but the question whether gradients are finite.

#include <ATen/ATen.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "border.h"

using at::Tensor;
using senet::guarded;
using Tensors = std::vector<Tensor>;

namespace {

// The parameters that have a gradient, with their gradients and the optimizer's tensors for them.
struct Group {
  Tensors values, grads, firsts, seconds;

  Group(Tensor **params, size_t count, Tensor **first = nullptr, Tensor **second = nullptr) {
    for (size_t i = 0; i < count; ++i) {
      const Tensor &grad = params[i]->grad();
      if (!grad.defined()) continue;
      values.push_back(*params[i]);
      grads.push_back(grad);
      if (first != nullptr) firsts.push_back(*first[i]);
      if (second != nullptr) seconds.push_back(*second[i]);
    }
  }

  bool empty() const { return values.empty(); }
};

// min(most / (norm + epsilon), 1) of all tensors taken as one vector; of no dimension, on the device.
Tensor shrinking(const Tensors &tensors, double most, double epsilon) {
  const Tensor norm = at::stack(at::_foreach_norm(tensors)).norm();
  return at::clamp_max(at::reciprocal(norm + epsilon) * most, 1.0);
}

// |w| / |u| for each pair, and 1 where either is 0.
Tensors trust_ratios(const Tensors &values, const Tensors &updates) {
  const Tensor w = at::stack(at::_foreach_norm(values)), u = at::stack(at::_foreach_norm(updates));
  return at::where((w > 0).logical_and(u > 0), w / u, at::ones_like(w)).unbind(0);
}

}  // namespace

extern "C" {

// v = momentum * v + (g + weight_decay * p); p -= lr * (v or Nesterov's). `first` says that v has no history yet.
// Without momentum the operator takes no velocities, which then stay as they were.
int senet_sgd_step(Tensor **params, Tensor **velocities, size_t count, double lr, double momentum,
                   double weight_decay, int nesterov, int first) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count, velocities);
    if (group.empty()) return;
    at::_fused_sgd_(group.values, group.grads, momentum == 0 ? Tensors() : group.firsts, weight_decay, momentum, lr,
                    /*dampening=*/0.0, nesterov != 0, /*maximize=*/false, first != 0);
  });
}

// `step` counts from 1.
int senet_adamw_step(Tensor **params, Tensor **means, Tensor **squares, size_t count, double lr, double beta1,
                     double beta2, double epsilon, double weight_decay, double step) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count, means, squares);
    if (group.empty()) return;
    // The operator wants a count for each parameter, on the device; one tensor serves all.
    const Tensor now = at::full({}, step, group.values[0].options().dtype(at::kFloat).requires_grad(false));
    const Tensors steps(group.values.size(), now);
    at::_fused_adamw_(group.values, group.grads, group.firsts, group.seconds, /*max_exp_avg_sqs=*/{}, steps, lr,
                      beta1, beta2, weight_decay, epsilon, /*amsgrad=*/false, /*maximize=*/false);
  });
}

// u = m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay * p; p -= lr * |p| / |u| * u,
// where the ratio of norms is left out for parameters that do not decay.
int senet_lamb_step(Tensor **params, Tensor **means, Tensor **squares, size_t count, double lr, double beta1,
                    double beta2, double epsilon, double weight_decay, double step) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count, means, squares);
    if (group.empty()) return;
    at::_foreach_lerp_(group.firsts, group.grads, 1 - beta1);
    at::_foreach_mul_(group.seconds, beta2);
    at::_foreach_addcmul_(group.seconds, group.grads, group.grads, 1 - beta2);

    auto divisors = at::_foreach_sqrt(group.seconds);
    at::_foreach_div_(divisors, std::sqrt(1 - std::pow(beta2, step)));
    at::_foreach_add_(divisors, epsilon);
    auto updates = at::_foreach_div(group.firsts, divisors);
    at::_foreach_div_(updates, 1 - std::pow(beta1, step));
    if (weight_decay != 0) {
      at::_foreach_add_(updates, group.values, weight_decay);
      at::_foreach_mul_(updates, trust_ratios(group.values, updates));
    }
    at::_foreach_add_(group.values, updates, -lr);
  });
}

// s += (1 - alpha) * (g^2 - s); d = lr * g / sqrt(s + epsilon); p -= d, or with momentum b = momentum * b + d; p -= b.
// Without momentum there are no `buffers`.
int senet_rmsprop_tf_step(Tensor **params, Tensor **squares, Tensor **buffers, size_t count, double lr, double alpha,
                          double momentum, double epsilon, double weight_decay) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count, squares, buffers);
    if (group.empty()) return;
    if (weight_decay != 0) at::_foreach_add_(group.grads, group.values, weight_decay);
    at::_foreach_lerp_(group.firsts, at::_foreach_mul(group.grads, group.grads), 1 - alpha);
    auto roots = at::_foreach_add(group.firsts, epsilon);
    at::_foreach_sqrt_(roots);
    if (buffers == nullptr) {
      at::_foreach_addcdiv_(group.values, group.grads, roots, -lr);
      return;
    }
    at::_foreach_mul_(group.seconds, momentum);
    at::_foreach_addcdiv_(group.seconds, group.grads, roots, lr);
    at::_foreach_sub_(group.values, group.seconds);
  });
}

// g *= min(most / (|g| + epsilon), 1), with the norm over all gradients.
int senet_clip_gradient_norm(Tensor **params, size_t count, double most, double epsilon) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count);
    if (!group.empty()) at::_foreach_mul_(group.grads, shrinking(group.grads, most, epsilon));
  });
}

// Every value of the gradients into [-most, most].
int senet_clip_gradient_values(Tensor **params, size_t count, double most) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Group group(params, count);
    if (group.empty()) return;
    at::_foreach_clamp_min_(group.grads, -most);
    at::_foreach_clamp_max_(group.grads, most);
  });
}

// mean += share * (value - mean), for each pair.
int senet_move_averages(Tensor **means, Tensor **values, size_t count, double share) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    Tensors targets, sources;
    for (size_t i = 0; i < count; ++i) {
      targets.push_back(*means[i]);
      sources.push_back(*values[i]);
    }
    if (!targets.empty()) at::_foreach_lerp_(targets, sources, share);
  });
}

// g *= factor, and whether all of it is finite. (The operator looks first, so what it says is of g as it came.)
int senet_scale_gradients(Tensor **params, size_t count, double factor, int *finite) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const Group group(params, count);
    *finite = 1;
    if (group.empty()) return;
    const auto options = group.grads[0].options().dtype(at::kFloat);
    Tensor not_finite = at::zeros({1}, options);
    at::_amp_foreach_non_finite_check_and_unscale_(group.grads, not_finite, at::full({1}, factor, options));
    *finite = not_finite.item<float>() == 0 ? 1 : 0;  // sync: the update depends on it
  });
}

// Whether all gradients are finite. A sum with an infinity or a NaN in it is not finite; only where one is not, which
// large values can do as well, each value is looked at.
int senet_gradients_are_finite(Tensor **params, size_t count, int *finite) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const Group group(params, count);
    *finite = 1;
    if (group.empty()) return;
    Tensors sums;
    for (const Tensor &grad : group.grads) sums.push_back(grad.sum());
    const auto all_finite = [](const Tensor &values) { return at::isfinite(values).all().item<bool>(); };
    *finite = all_finite(at::stack(sums)) ||  // sync: the update depends on it
                      std::all_of(group.grads.begin(), group.grads.end(), all_finite)
                  ? 1
                  : 0;
  });
}

// Dropping a gradient is cheaper than filling it with zeros: the next backward pass stores instead of adding.
int senet_drop_gradients(Tensor **params, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) params[i]->mutable_grad().reset();
  });
}

}  // extern "C"
