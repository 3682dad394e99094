// STAR's update of one tensor: what `steps.plain` makes, in three passes over memory.
//
// XLA makes dozens of programs of an update, and writes what it cannot fuse across reductions over the tensor. Here
// features live in registers in every pass: the first updates momenta and second moment, the second adds up squares of
// what the factored statistics divide, the third runs the network. Whatever scales a feature or a head is folded into
// the network's weights. Sums are made by chunks of lines, in their order: the number of threads changes no bit.

#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "lanes.h"

constexpr int kFeatures = 28, kHidden = 4, kHeads = 4;
constexpr int64_t kChunk = 16384;  // elements of a chunk, about
constexpr int64_t kLine = 4096;    // elements of a line of a tensor of rank 1
constexpr float kFactoredEps = 1e-30f;

// In the order of `Nominal` and `Preconditioner` in Python. With `kOrthogonal` the direction is added elsewhere.
enum Nominal { kNone, kSgd, kMomentum, kAggmo, kAdam, kAdamAggmo, kOrthogonal };
enum Preconditioner { kNoPreconditioner, kSecondMoment, kRms };

// The features of `features.parameter_features`, where those that come in threes start; and, after them, what else is
// summed over the tensor: the square of the direction `adam-aggmo`, and the products of `alignment.terms`.
enum Sum {
  kGrad, kParam, kMomenta, kSecond = 5, kScaled, kRoot = 9, kFactoredGrad, kRows = 13, kColumns = 16,
  kInverseRows = 19, kInverseColumns = 22, kFactoredMomenta = 25, kDirection = kFeatures, kProducts,
  kSums = kProducts + 7
};

struct Options {
  int64_t size, lines, columns;  // of the tensor; of each matrix of a stack, or 0 where the rank is below 2
  bool rows_last;                // whether the largest dimension is that of columns, which `rows` then go along
  int64_t nominal, preconditioner;
  bool magnitude, aligned, apart;  // apart: what decays does not go with the step
  float step_scale, nominal_scale, exponent_scale, weight_decay, clipping, length;
  float feature_eps, second_moment_eps, preconditioner_eps;
};

// What is the same for all elements of a tensor, in the order in which it comes.
struct Scalars {
  float keep[7];    // decays: of momenta, second moment, factored
  float unbias[7];  // by which averages are multiplied for their bias
  float early_decay;
  float first[kFeatures][kHidden], first_bias[kHidden];
  float second[kHidden][kHidden], second_bias[kHidden];
  float heads[kHeads][kHidden], head_bias[kHeads];  // those that are there, first
};

// Arrays in the layout of `statistics.Statistics`. New statistics may stand where the old ones do.
struct Tensor {
  const float *grad, *param, *momenta, *second, *rows, *columns;
  float *update, *decayed, *magnitude, *new_momenta, *new_second, *new_rows, *new_columns, *products;
};

using Call = std::function<void(int64_t)>;
using Each = std::function<void(int64_t, const Call&)>;  // calls f(0), ..., f(n - 1)

class Update {
 public:
  Update(const Options& o, const Scalars& s, const Tensor& t) : o_(o), s_(s), t_(t), matrix_(o.lines > 0) {
    columns_ = matrix_ ? o.columns : std::min(o.size, kLine);
    lines_ = matrix_ ? o.lines : (o.size + columns_ - 1) / columns_;
    matrices_ = matrix_ ? o.size / (lines_ * columns_) : 1;
    chunk_lines_ = std::min(lines_, std::max<int64_t>(1, kChunk / columns_));
    chunks_of_matrix_ = (lines_ + chunk_lines_ - 1) / chunk_lines_;
    chunks_ = matrices_ * chunks_of_matrix_;
    static thread_local std::vector<float> memory;
    const int64_t needed = Allocate(nullptr);
    if (static_cast<int64_t>(memory.size()) < needed) memory.resize(needed);
    Allocate(memory.data());
  }

  void Run(const Each& each) {
    each(chunks_, [this](int64_t i) { Moments(i); });
    if (matrix_) Factor();
    each(chunks_, [this](int64_t i) { matrix_ ? SumFactored(i) : FactorVector(i); });
    Fold();
    each(chunks_, [this](int64_t i) { matrix_ ? Step<true>(i) : Step<false>(i); });
  }

 private:
  // One dimension of the matrices of a stack, with what is kept for every place along it, matrix by matrix.
  struct Axis {
    int64_t size = 0, padded = 0;
    bool rows = false;
    float *squares, *inverse[3], *bias[kHidden];
  };

  struct Chunk {
    int64_t matrix, first, last;  // lines of that matrix
  };

  Chunk ChunkAt(int64_t i) const {
    const int64_t first = i % chunks_of_matrix_ * chunk_lines_;
    return {i / chunks_of_matrix_, first, std::min(first + chunk_lines_, lines_)};
  }

  // Where a line starts, and how long it is.
  int64_t Start(int64_t matrix, int64_t line) const { return (matrix * lines_ + line) * columns_; }
  int64_t Width(int64_t start) const { return std::min(columns_, o_.size - start); }

  // How much is needed, and from `at` on where everything lies.
  int64_t Allocate(float* at) {
    int64_t taken = 0;
    const auto take = [&taken, at](int64_t n) {
      taken += n;
      return at ? at + (taken - n) : nullptr;
    };
    sums_ = take(chunks_ * kSums);
    if (!matrix_) return taken;
    const auto padded = [](int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; };
    by_line_.size = lines_, by_line_.padded = padded(lines_), by_line_.rows = !o_.rows_last;
    by_column_.size = columns_, by_column_.padded = padded(columns_), by_column_.rows = o_.rows_last;
    by_line_.squares = take(matrices_ * by_line_.padded);
    by_column_.squares = take(chunks_ * by_column_.padded);
    for (Axis* axis : {&by_line_, &by_column_}) {
      for (float*& x : axis->inverse) x = take(matrices_ * axis->padded);
      for (float*& x : axis->bias) x = take(matrices_ * axis->padded);
    }
    roots_ = take(3 * matrices_);
    return taken;
  }

  INLINE Lanes Root(Lanes second) const { return InverseRoot(second * s_.unbias[3] + o_.second_moment_eps); }

  void Moments(int64_t index);
  void Factor();
  void FactorAxis(const Axis& axis, const float* squares, float share, int64_t matrix);
  void SumFactored(int64_t index);
  void FactorVector(int64_t index);
  void Fold();
  void FoldHeads(float rms);
  void Biases(const Axis& axis);
  template <bool kMatrix>
  void Step(int64_t index);
  void Finish(Lanes* hidden, const Lanes* factors, int64_t at, int64_t n);

  // By which the inverse roots along columns are multiplied in a line.
  INLINE float LineFactor(int64_t matrix, int64_t line, int i) const {
    return by_line_.inverse[i][matrix * by_line_.padded + line] * roots_[3 * matrix + i];
  }

  const Options& o_;
  const Scalars& s_;
  const Tensor& t_;
  const bool matrix_;
  int64_t columns_, lines_, matrices_, chunk_lines_, chunks_of_matrix_, chunks_;
  Axis by_line_, by_column_;
  float *sums_, *roots_ = nullptr;  // sums of every chunk; roots of the mean of rows of every matrix
  float first_[kFeatures][kHidden], heads_[kHeads][kHidden], head_bias_[kHeads], nominal_[4];
};
