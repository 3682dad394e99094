// The last pass of an update: the network, its weights folded with what is the same for all elements, and its heads.

#pragma once

#include "update.h"

// Sums over all chunks, and with them the first layer for features that are neither normalised nor free of bias.
inline void Update::Fold() {
  double total[kSums] = {};
  for (int64_t i = 0; i < chunks_; ++i)
    for (int k = 0; k < kSums; ++k) total[k] += sums_[i * kSums + k];
  if (o_.aligned)
    for (int i = 0; i < 7; ++i) t_.products[i] = static_cast<float>(total[kProducts + i]);
  for (int k = 0; k < kFeatures; ++k) {
    float unbias = 1;
    if (k >= kMomenta && k <= kSecond) unbias = s_.unbias[k - kMomenta];
    if (k >= kScaled && k < kRoot) unbias = s_.unbias[k - kScaled];
    if (k >= kFactoredMomenta) unbias = s_.unbias[k - kFactoredMomenta];
    const float mean = static_cast<float>(total[k] / o_.size) * unbias * unbias;
    const float scale = unbias / std::sqrt(mean + o_.feature_eps);
    for (int j = 0; j < kHidden; ++j) first_[k][j] = s_.first[k][j] * scale;
  }
  FoldHeads(std::sqrt(static_cast<float>(total[kDirection] / o_.size) + o_.feature_eps));
  if (matrix_) {
    Biases(by_line_);
    Biases(by_column_);
    return;
  }
  for (int i = 0; i < 3; ++i)  // rows and columns are the same
    for (int j = 0; j < kHidden; ++j) {
      first_[kRows + i][j] += first_[kColumns + i][j];
      first_[kInverseRows + i][j] += first_[kInverseColumns + i][j];
    }
}

// Of the black box and the nominal term, which are subtracted, and of exponents, of 2. `rms`: of `adam-aggmo`.
inline void Update::FoldHeads(float rms) {
  const float clip = o_.clipping > 0 ? std::min(o_.clipping / rms, 1.0f) : 1.0f, length = o_.length * rms;
  for (int k = 0; k < kHeads; ++k) {
    const float box = -o_.step_scale * clip * (o_.preconditioner == kRms ? length : 1.0f);
    const float factor = k ? o_.exponent_scale * 1.44269504f : box;
    for (int j = 0; j < kHidden; ++j) heads_[k][j] = s_.heads[k][j] * factor;
    head_bias_[k] = s_.head_bias[k] * factor;
  }
  std::fill(nominal_, nominal_ + 4, 0.0f);
  const float scale = -o_.nominal_scale * clip;
  if (o_.nominal == kOrthogonal) nominal_[0] = scale * length;
  if (o_.nominal == kSgd) nominal_[3] = scale;
  if (o_.nominal == kMomentum || o_.nominal == kAdam) nominal_[0] = scale * s_.unbias[0];
  if (o_.nominal == kAggmo || o_.nominal == kAdamAggmo)
    for (int i = 0; i < 3; ++i) nominal_[i] = scale * s_.unbias[i] / 3;
}

// What the features that vary along one axis alone add to the first layer.
inline void Update::Biases(const Axis& axis) {
  const float* averages = axis.rows ? t_.new_rows : t_.new_columns;
  const int plain = axis.rows ? kRows : kColumns, inverse = axis.rows ? kInverseRows : kInverseColumns;
  for (int64_t matrix = 0; matrix < matrices_; ++matrix)
    for (int64_t c = 0; c < axis.size; c += kLanes) {
      Lanes bias[kHidden] = {};
      for (int i = 0; i < 3; ++i) {
        const Lanes average = Load(averages + (i * matrices_ + matrix) * axis.size + c, axis.size - c);
        const Lanes read = average * s_.unbias[4 + i], own = Load(axis.inverse[i] + matrix * axis.padded + c);
        for (int j = 0; j < kHidden; ++j) bias[j] += first_[plain + i][j] * read + first_[inverse + i][j] * own;
      }
      for (int j = 0; j < kHidden; ++j) Store(axis.bias[j] + matrix * axis.padded + c, bias[j]);
    }
}

INLINE void Add(Lanes* hidden, const float* weights, Lanes input) {
  for (int j = 0; j < kHidden; ++j) hidden[j] += weights[j] * input;
}

INLINE Lanes Dense(const float* weights, float bias, const Lanes* inputs) {
  Lanes found = Fill(bias);
  for (int j = 0; j < kHidden; ++j) found += weights[j] * inputs[j];
  return found;
}

// Features of the factored second moment; those that vary along one axis alone are biases already.
template <bool kMatrix>
inline void Update::Step(int64_t index) {
  const Chunk chunk = ChunkAt(index);
  for (int64_t line = chunk.first; line < chunk.last; ++line) {
    const int64_t start = Start(chunk.matrix, line), width = Width(start);
    const int64_t by_column = chunk.matrix * by_column_.padded, by_line = chunk.matrix * by_line_.padded + line;
    float own[3], bias[kHidden];
    for (int i = 0; i < 3; ++i) own[i] = kMatrix ? LineFactor(chunk.matrix, line, i) : 1.0f;
    for (int j = 0; j < kHidden; ++j) bias[j] = s_.first_bias[j] + (kMatrix ? by_line_.bias[j][by_line] : 0.0f);
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t at = start + c, n = width - c;
      Lanes hidden[kHidden], factors[3];
      for (int j = 0; j < kHidden; ++j)
        hidden[j] = kMatrix ? bias[j] + Load(by_column_.bias[j] + by_column + c) : Fill(bias[j]);
      for (int i = 0; i < 3; ++i) {
        if (kMatrix) {
          factors[i] = own[i] * Load(by_column_.inverse[i] + by_column + c);
          continue;
        }
        const Lanes read = Load(t_.new_rows + i * o_.size + at, n) * s_.unbias[4 + i];
        factors[i] = InverseRoot(read + o_.second_moment_eps);
        Add(hidden, first_[kRows + i], read);
        Add(hidden, first_[kInverseRows + i], factors[i]);
      }
      Finish(hidden, factors, at, n);
    }
  }
}

// The other features, the network, and what its heads make of the parameters.
INLINE void Update::Finish(Lanes* hidden, const Lanes* factors, int64_t at, int64_t n) {
  const Lanes g = Load(t_.grad + at, n), p = Load(t_.param + at, n), v = Load(t_.new_second + at, n), r = Root(v);
  Lanes direction = nominal_[3] * g, last[kHidden];
  Add(hidden, first_[kGrad], g);
  Add(hidden, first_[kParam], p);
  Add(hidden, first_[kSecond], v);
  Add(hidden, first_[kRoot], r);
  for (int i = 0; i < 3; ++i) {
    const Lanes m = Load(t_.new_momenta + i * o_.size + at, n);
    direction += nominal_[i] * m;
    Add(hidden, first_[kMomenta + i], m);
    Add(hidden, first_[kScaled + i], m * r);
    Add(hidden, first_[kFactoredGrad + i], g * factors[i]);
    Add(hidden, first_[kFactoredMomenta + i], m * factors[i]);
  }
  for (int j = 0; j < kHidden; ++j) hidden[j] = Rectified(hidden[j]);
  for (int j = 0; j < kHidden; ++j) last[j] = Rectified(Dense(s_.second[j], s_.second_bias[j], hidden));
  int next = 0;
  const auto head = [&] {
    const Lanes found = Dense(heads_[next], head_bias_[next], last);
    ++next;
    return found;
  };
  Lanes step = head();
  if (o_.magnitude) step *= Exp2(head());
  if (o_.preconditioner == kSecondMoment) step *= InverseRoot(v * s_.unbias[3] + o_.preconditioner_eps);
  if (o_.nominal == kOrthogonal) {
    Store(t_.magnitude + at, nominal_[0] * Exp2(head()), n);
  } else if (o_.nominal != kNone) {
    if (o_.nominal == kAdam || o_.nominal == kAdamAggmo) direction *= r;
    step += Exp2(head()) * direction;
  }
  if (matrix_) step -= s_.early_decay * p;
  if (o_.weight_decay > 0) {
    const Lanes decayed = o_.weight_decay * Exp2(head()) * p;
    if (o_.apart) {
      Store(t_.decayed + at, -decayed, n);
    } else {
      step -= decayed;
    }
  }
  Store(t_.update + at, step, n);
}
