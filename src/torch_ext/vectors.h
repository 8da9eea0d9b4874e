// Vectors of SENET_LANES floats, in the namespace and under the target options of one instruction set
// (instruction_sets.h includes this and a file of kernels for each).

typedef float Vector __attribute__((vector_size(SENET_LANES * sizeof(float)), aligned(4), may_alias));

SENET_INLINE Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
SENET_INLINE void store(float *to, Vector v) { *reinterpret_cast<Vector *>(to) = v; }
SENET_INLINE Vector relu(Vector v) { return v < 0 ? Vector{} : v; }  // NaN stays NaN
