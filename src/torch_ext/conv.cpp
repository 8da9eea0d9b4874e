// Convolution for inference: bias and ReLU in the same pass, weights packed once in oneDNN's layout. The operators
// are those that torch.compile's freezing uses; they are registered in libtorch_cpu, but have no C++ header.
//
// oneDNN's own ReLU is a maximum that makes NaN 0. Its leaky ReLU, x < 0 ? slope * x : x, keeps NaN: with a slope so
// small that the negative values are lost in the rounding of every sum that they enter, it takes the ReLU's place.
// Behind a sum the operator knows the ReLU alone, which is therefore a pass of its own there.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/List.h>

#include "border.h"

using at::IntArrayRef;
using at::Tensor;

namespace {

// Far below float32's rounding beside activations of any use, and above subnormal numbers, which are slow.
constexpr double kSlope = 1e-20;

using Scalars = c10::List<std::optional<at::Scalar>>;
using PackSignature = Tensor(const Tensor &, IntArrayRef, IntArrayRef, IntArrayRef, int64_t,
                             at::OptionalArrayRef<int64_t>);
using ConvSignature = Tensor(const Tensor &, const Tensor &, const std::optional<Tensor> &, IntArrayRef, IntArrayRef,
                             IntArrayRef, int64_t, std::string_view, Scalars, std::optional<std::string_view>);
using ConvAddSignature = Tensor(const Tensor &, const Tensor &, const Tensor &, const std::optional<Tensor> &,
                                IntArrayRef, IntArrayRef, IntArrayRef, int64_t, std::string_view,
                                std::optional<at::Scalar>, std::optional<std::string_view>, Scalars,
                                std::optional<std::string_view>);

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char *name, const char *overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

}  // namespace

extern "C" {

// Packs weights [C_out, C_in / groups, K_h, K_w] for inputs of the given shape.
int senet_pack_convolution(const Tensor *weight, int64_t stride, const int64_t *padding, int64_t groups,
                           const int64_t *input_shape, Tensor **out) {
  return senet::guarded([&] {
    static const auto pack = find<PackSignature>("mkldnn::_reorder_convolution_weight", "");
    const int64_t strides[] = {stride, stride}, dilations[] = {1, 1};
    const IntArrayRef shape(input_shape, 4), paddings(padding, 2);
    senet::hand_over(pack.call(*weight, paddings, strides, dilations, groups, shape), out);
  });
}

// relu?(convolution(x) + bias), or relu?(convolution(x) + bias + other) where there is an `other`.
int senet_packed_convolution(const Tensor *x, const Tensor *weight, const Tensor *bias, const Tensor *other,
                             int64_t stride, const int64_t *padding, int64_t groups, int relu, Tensor **out) {
  return senet::guarded([&] {
    const int64_t strides[] = {stride, stride}, dilations[] = {1, 1};
    const IntArrayRef paddings(padding, 2);
    const Scalars none;
    Tensor y;
    if (other == nullptr) {
      static const auto convolve = find<ConvSignature>("mkldnn::_convolution_pointwise", "");
      Scalars slope;
      slope.push_back(at::Scalar(kSlope));
      y = convolve.call(*x, *weight, senet::optional(bias), paddings, strides, dilations, groups,
                        relu != 0 ? "leaky_relu" : "none", relu != 0 ? slope : none, std::nullopt);
    } else {
      static const auto convolve = find<ConvAddSignature>("mkldnn::_convolution_pointwise", "binary");
      y = convolve.call(*x, *other, *weight, senet::optional(bias), paddings, strides, dilations, groups, "add",
                        at::Scalar(1.0), std::nullopt, none, std::nullopt);
      if (relu != 0) y.relu_();
    }
    senet::hand_over(std::move(y), out);
  });
}

}  // extern "C"
