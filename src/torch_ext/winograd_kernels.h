// The inner loops of winograd.cpp, for vectors of SENET_LANES floats (instruction_sets.h).
//
// A convolution of 3x3 over tiles of 4x4 outputs, in one dimension (Winograd's F(4, 3) by the points 0, ±a, ±b and
// infinity):
//
//   y = At [(G w) * (Bt x)]      x: 6 inputs, w: 3 weights, y: 4 outputs, * element by element
//
// and in two dimensions the same along rows and along columns, 6x6 products in place of 4x4x9. The usual points are
// ±1 and ±2; these lose half as much to rounding.

constexpr float kA = 0.75f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;

// Bt and its transpose.
struct Input {
  static constexpr int kFrom = 6, kTo = 6;
  static SENET_INLINE void apply(const Vector *x, Vector *t) {
    const Vector even_a = x[4] - kB2 * x[2], odd_a = kA * (x[3] - kB2 * x[1]);
    const Vector even_b = x[4] - kA2 * x[2], odd_b = kB * (x[3] - kA2 * x[1]);
    t[0] = (kA2 * kB2) * x[0] - (kA2 + kB2) * x[2] + x[4];
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = (kA2 * kB2) * x[1] - (kA2 + kB2) * x[3] + x[5];
  }
};

struct InputAdjoint {
  static constexpr int kFrom = 6, kTo = 6;
  static SENET_INLINE void apply(const Vector *t, Vector *x) {
    const Vector even_a = t[1] + t[2], odd_a = kA * (t[1] - t[2]);
    const Vector even_b = t[3] + t[4], odd_b = kB * (t[3] - t[4]);
    x[0] = (kA2 * kB2) * t[0];
    x[1] = (kA2 * kB2) * t[5] - kB2 * odd_a - kA2 * odd_b;
    x[2] = -(kA2 + kB2) * t[0] - kB2 * even_a - kA2 * even_b;
    x[3] = odd_a + odd_b - (kA2 + kB2) * t[5];
    x[4] = t[0] + even_a + even_b;
    x[5] = t[5];
  }
};

// At and its transpose.
struct Output {
  static constexpr int kFrom = 6, kTo = 4;
  static SENET_INLINE void apply(const Vector *t, Vector *y) {
    const Vector even_a = t[1] + t[2], odd_a = t[1] - t[2], even_b = t[3] + t[4], odd_b = t[3] - t[4];
    y[0] = t[0] + even_a + even_b;
    y[1] = kA * odd_a + kB * odd_b;
    y[2] = kA2 * even_a + kB2 * even_b;
    y[3] = kA3 * odd_a + kB3 * odd_b + t[5];
  }
};

struct OutputAdjoint {
  static constexpr int kFrom = 4, kTo = 6;
  static SENET_INLINE void apply(const Vector *y, Vector *t) {
    const Vector even_a = y[0] + kA2 * y[2], odd_a = kA * y[1] + kA3 * y[3];
    const Vector even_b = y[0] + kB2 * y[2], odd_b = kB * y[1] + kB3 * y[3];
    t[0] = y[0];
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = y[3];
  }
};

// G and its transpose.
constexpr float kG0 = 1 / (kA2 * kB2), kGa = 1 / (2 * kA2 * (kA2 - kB2)), kGb = 1 / (2 * kB2 * (kB2 - kA2));

struct Filter {
  static constexpr int kFrom = 3, kTo = 6;
  static SENET_INLINE void apply(const Vector *w, Vector *t) {
    const Vector even_a = kGa * (w[0] + kA2 * w[2]), odd_a = (kGa * kA) * w[1];
    const Vector even_b = kGb * (w[0] + kB2 * w[2]), odd_b = (kGb * kB) * w[1];
    t[0] = kG0 * w[0];
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = w[2];
  }
};

struct FilterAdjoint {
  static constexpr int kFrom = 6, kTo = 3;
  static SENET_INLINE void apply(const Vector *t, Vector *w) {
    const Vector even_a = kGa * (t[1] + t[2]), odd_a = (kGa * kA) * (t[1] - t[2]);
    const Vector even_b = kGb * (t[3] + t[4]), odd_b = (kGb * kB) * (t[3] - t[4]);
    w[0] = kG0 * t[0] + even_a + even_b;
    w[1] = odd_a + odd_b;
    w[2] = kA2 * even_a + kB2 * even_b + t[5];
  }
};

// `put(i, j, value)` gets the transform, along rows and columns, of what `get(i, j)` gives.
template <typename Transform, typename Get, typename Put>
SENET_INLINE void transform(Get get, Put put) {
  constexpr int from = Transform::kFrom, to = Transform::kTo;
  Vector middle[from][to];
#pragma GCC unroll 6
  for (int i = 0; i < from; ++i) {
    Vector row[from];
#pragma GCC unroll 6
    for (int j = 0; j < from; ++j) row[j] = get(i, j);
    Transform::apply(row, middle[i]);
  }
#pragma GCC unroll 6
  for (int j = 0; j < to; ++j) {
    Vector column[from], result[to];
#pragma GCC unroll 6
    for (int i = 0; i < from; ++i) column[i] = middle[i][j];
    Transform::apply(column, result);
#pragma GCC unroll 6
    for (int i = 0; i < to; ++i) put(i, j, result[i]);
  }
}

// The values of `side` x `side` pixels from the origin (y, x) of a map, as pointers; pixels outside point to `zeros`.
SENET_INLINE void window(const float *map, const Grid &grid, int64_t channels, int64_t y, int64_t x, int side,
                         const float *zeros, const float **pixels) {
  for (int i = 0; i < side; ++i) {
    for (int j = 0; j < side; ++j) {
      const bool inside = y + i >= 0 && y + i < grid.height && x + j >= 0 && x + j < grid.width;
      pixels[i * side + j] = inside ? map + ((y + i) * grid.width + x + j) * channels : zeros;
    }
  }
}

// Tiles [first, last) of maps [N, H, W, C] as 36 matrices [tiles, C].
void to_points(const float *maps, const Grid &grid, int64_t channels, int64_t first, int64_t last, bool of_gradient,
               const float *zeros, float *points, int64_t point_stride) {
  const int side = of_gradient ? 4 : 6, border = of_gradient ? 0 : 1;
  const float *pixels[36];
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = grid.place(tile);
    const float *map = maps + place.image * grid.height * grid.width * channels;
    const int64_t y = place.y - border, x = place.x - border;
    float *to = points + tile * channels;
    const auto write = [&](int64_t c, auto get) {
      const auto put = [&](int i, int j, Vector v) { store(to + (i * 6 + j) * point_stride + c, v); };
      if (of_gradient) {
        transform<OutputAdjoint>(get, put);
      } else {
        transform<Input>(get, put);
      }
    };
    if (y >= 0 && x >= 0 && y + side <= grid.height && x + side <= grid.width) {
      const float *corner = map + (y * grid.width + x) * channels;
      const int64_t row = grid.width * channels;
      for (int64_t c = 0; c < channels; c += SENET_LANES) {
        write(c, [&](int i, int j) { return load(corner + i * row + j * channels + c); });
      }
    } else {
      window(map, grid, channels, y, x, side, zeros, pixels);
      for (int64_t c = 0; c < channels; c += SENET_LANES) {
        write(c, [&](int i, int j) { return load(pixels[i * side + j] + c); });
      }
    }
  }
}

// Outputs of the tiles [first, last) from 36 matrices [tiles, width], which are the channels from `channel` on:
// relu?(y + bias + other). `bias` and `other` (a map like `maps`) may be null.
void from_points(const float *points, int64_t point_stride, int64_t width, const Grid &grid, int64_t channels,
                 int64_t channel, int64_t first, int64_t last, const float *bias, const float *other, bool with_relu,
                 float *maps) {
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = grid.place(tile);
    const int64_t corner =
        ((place.image * grid.height + place.y) * grid.width + place.x) * channels + channel;
    const int64_t rows = grid.height - place.y, columns = grid.width - place.x;
    const float *from = points + (tile - first) * width;
    for (int64_t c = 0; c < width; c += SENET_LANES) {
      const Vector shift = bias == nullptr ? Vector{} : load(bias + channel + c);
      transform<Output>([&](int i, int j) { return load(from + (i * 6 + j) * point_stride + c); },
                        [&](int i, int j, Vector v) {
                          if (i >= rows || j >= columns) return;
                          const int64_t at = corner + (i * grid.width + j) * channels + c;
                          v += shift;
                          if (other != nullptr) v += load(other + at);
                          store(maps + at, with_relu ? relu(v) : v);
                        });
    }
  }
}

// Adds the gradients of the tiles' inputs, from 36 matrices [tiles, width], to maps.
void spread_points(const float *points, int64_t point_stride, int64_t width, const Grid &grid, int64_t channels,
                   int64_t channel, int64_t first, int64_t last, float *maps) {
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = grid.place(tile);
    const int64_t y = place.y - 1, x = place.x - 1;
    float *map = maps + place.image * grid.height * grid.width * channels + channel;
    const float *from = points + (tile - first) * width;
    for (int64_t c = 0; c < width; c += SENET_LANES) {
      transform<InputAdjoint>([&](int i, int j) { return load(from + (i * 6 + j) * point_stride + c); },
                              [&](int i, int j, Vector v) {
                                if (y + i < 0 || y + i >= grid.height || x + j < 0 || x + j >= grid.width) return;
                                float *at = map + ((y + i) * grid.width + x + j) * channels + c;
                                store(at, load(at) + v);
                              });
    }
  }
}

// Filters of `depth` inputs and the outputs [channel, channel + width) as 36 matrices [depth, width]. Values lie at
// weight[d * depth_stride + (row * 3 + column) * tap_stride + output].
void filters_to_points(const float *weight, int64_t depth, int64_t depth_stride, int64_t tap_stride, int64_t channel,
                       int64_t width, float *points) {
  for (int64_t d = 0; d < depth; ++d) {
    const float *from = weight + d * depth_stride + channel;
    float *to = points + d * width;
    for (int64_t c = 0; c < width; c += SENET_LANES) {
      transform<Filter>([&](int i, int j) { return load(from + (i * 3 + j) * tap_stride + c); },
                        [&](int i, int j, Vector v) { store(to + (i * 6 + j) * depth * width + c, v); });
    }
  }
}

// The gradient of filters, [rows, 3, 3, channels] from `weight` on, from 36 matrices [rows, width].
void filters_from_points(const float *points, int64_t rows, int64_t width, int64_t channels, float *weight) {
  for (int64_t row = 0; row < rows; ++row) {
    const float *from = points + row * width;
    float *to = weight + row * 9 * channels;
    for (int64_t c = 0; c < width; c += SENET_LANES) {
      transform<FilterAdjoint>([&](int i, int j) { return load(from + (i * 6 + j) * rows * width + c); },
                               [&](int i, int j, Vector v) { store(to + (i * 3 + j) * channels + c, v); });
    }
  }
}

// Rows of a product that stay in registers: Rows x (Vectors * lanes) sums, one broadcast value of a, Vectors of b.
template <int Rows, int Vectors>
SENET_INLINE void multiply_rows(const Matrix &a, const float *a_values, const float *b, int64_t b_stride,
                                int64_t depth, float *c, int64_t c_stride, bool add) {
  Vector sums[Rows][Vectors] = {};
  for (int64_t k = 0; k < depth; ++k, a_values += a.column_stride, b += b_stride) {
    Vector b_row[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) b_row[v] = load(b + v * SENET_LANES);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const float value = a_values[r * a.row_stride];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] += value * b_row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      float *to = c + r * c_stride + v * SENET_LANES;
      store(to, add ? load(to) + sums[r][v] : sums[r][v]);
    }
  }
}

template <int Rows, int Vectors>
SENET_INLINE void multiply_rest(int64_t rows, const Matrix &a, const float *a_values, const float *b,
                                int64_t b_stride, int64_t depth, float *c, int64_t c_stride, bool add) {
  if constexpr (Rows > 0) {
    if (rows == Rows) return multiply_rows<Rows, Vectors>(a, a_values, b, b_stride, depth, c, c_stride, add);
    multiply_rest<Rows - 1, Vectors>(rows, a, a_values, b, b_stride, depth, c, c_stride, add);
  }
}

// c (+)= a b with a [rows, depth], b [depth, width], c [rows, width]; width is a multiple of the lanes.
void multiply(const Matrix &a, int64_t rows, int64_t depth, const float *b, int64_t b_stride, int64_t width, float *c,
              int64_t c_stride, bool add) {
  constexpr int block = SENET_LANES == 8 ? 6 : 12;  // with two vectors a row as many sums as registers can hold
  for (int64_t row = 0; row < rows; row += block) {
    const float *a_values = a.values + row * a.row_stride;
    const int64_t count = rows - row;
    int64_t w = 0;
    for (; w + 2 * SENET_LANES <= width; w += 2 * SENET_LANES) {
      float *to = c + row * c_stride + w;
      if (count >= block) {
        multiply_rows<block, 2>(a, a_values, b + w, b_stride, depth, to, c_stride, add);
      } else {
        multiply_rest<block - 1, 2>(count, a, a_values, b + w, b_stride, depth, to, c_stride, add);
      }
    }
    for (; w < width; w += SENET_LANES) {
      float *to = c + row * c_stride + w;
      if (count >= block) {
        multiply_rows<block, 1>(a, a_values, b + w, b_stride, depth, to, c_stride, add);
      } else {
        multiply_rest<block - 1, 1>(count, a, a_values, b + w, b_stride, depth, to, c_stride, add);
      }
    }
  }
}

constexpr Kernels kKernels{to_points,         from_points,         spread_points,
                           filters_to_points, filters_from_points, multiply};
