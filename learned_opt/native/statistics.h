// The first two passes of an update: new statistics, and sums over the tensor of what they make up.

#pragma once

#include "update.h"

// New momenta and second moment, sums of squares of features made of them, products, squares by line and column.
inline void Update::Moments(int64_t index) {
  const Chunk chunk = ChunkAt(index);
  Lanes grads{}, params{}, momenta[3] = {}, scaled[3] = {}, seconds{}, roots{}, directions{}, products[7] = {};
  float* of_columns = matrix_ ? by_column_.squares + index * by_column_.padded : nullptr;
  if (matrix_) std::fill(of_columns, of_columns + by_column_.padded, 0.0f);
  for (int64_t line = chunk.first; line < chunk.last; ++line) {
    Lanes of_line{};
    const int64_t start = Start(chunk.matrix, line), width = Width(start);
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t at = start + c, n = width - c;
      const Lanes g = Load(t_.grad + at, n), p = Load(t_.param + at, n), square = g * g;
      const Lanes v = s_.keep[3] * Load(t_.second + at, n) + (1 - s_.keep[3]) * square;
      Store(t_.new_second + at, v, n);
      const Lanes r = First(Root(v), n);
      Lanes mean{};
      for (int i = 0; i < 3; ++i) {
        const Lanes before = Load(t_.momenta + i * o_.size + at, n);
        const Lanes m = s_.keep[i] * before + (1 - s_.keep[i]) * g, mr = m * r;
        Store(t_.new_momenta + i * o_.size + at, m, n);
        momenta[i] += m * m;
        scaled[i] += mr * mr;
        mean += mr * (s_.unbias[i] / 3);
        if (o_.aligned) {
          products[i] += before * r * g;
          products[3 + i] += before * r * before;
        }
      }
      if (o_.aligned) products[6] += square * r;
      directions += mean * mean;
      grads += square;
      params += p * p;
      seconds += v * v;
      roots += r * r;
      if (!matrix_) continue;
      of_line += square;
      Store(of_columns + c, Load(of_columns + c) + square);
    }
    if (matrix_) by_line_.squares[chunk.matrix * by_line_.padded + line] = Total(of_line);
  }
  float* sums = sums_ + index * kSums;
  std::fill(sums, sums + kSums, 0.0f);
  sums[kGrad] = Total(grads), sums[kParam] = Total(params), sums[kSecond] = Total(seconds);
  sums[kRoot] = Total(roots), sums[kDirection] = Total(directions);
  for (int i = 0; i < 3; ++i) sums[kMomenta + i] = Total(momenta[i]), sums[kScaled + i] = Total(scaled[i]);
  for (int i = 0; i < 7; ++i) sums[kProducts + i] = Total(products[i]);
}

// The averages over lines and columns, and their inverse roots.
inline void Update::Factor() {
  for (int64_t matrix = 0; matrix < matrices_; ++matrix) {
    float* squares = by_column_.squares + matrix * chunks_of_matrix_ * by_column_.padded;
    for (int64_t i = 1; i < chunks_of_matrix_; ++i)
      for (int64_t c = 0; c < by_column_.padded; c += kLanes)
        Store(squares + c, Load(squares + c) + Load(squares + i * by_column_.padded + c));
    FactorAxis(by_column_, squares, 1.0f / lines_, matrix);
    FactorAxis(by_line_, by_line_.squares + matrix * by_line_.padded, 1.0f / columns_, matrix);
  }
}

inline void Update::FactorAxis(const Axis& axis, const float* squares, float share, int64_t matrix) {
  const float* old = axis.rows ? t_.rows : t_.columns;
  float* updated = axis.rows ? t_.new_rows : t_.new_columns;
  float* sums = sums_ + matrix * chunks_of_matrix_ * kSums;
  const float times = static_cast<float>(lines_ * columns_ / axis.size);  // that the tensor has each of them
  for (int i = 0; i < 3; ++i) {
    const int64_t own = (i * matrices_ + matrix) * axis.size;
    const float keep = s_.keep[4 + i];
    Lanes total{}, reads{}, inverses{};
    for (int64_t c = 0; c < axis.size; c += kLanes) {
      const int64_t n = axis.size - c;
      const Lanes mean = Load(squares + c, n) * share + kFactoredEps;
      const Lanes average = keep * Load(old + own + c, n) + (1 - keep) * mean;
      Store(updated + own + c, average, n);
      const Lanes read = First(average * s_.unbias[4 + i], n);
      const Lanes inverse = First(InverseRoot(read + o_.second_moment_eps), n);
      Store(axis.inverse[i] + matrix * axis.padded + c, inverse);
      total += read;
      reads += read * read;
      inverses += inverse * inverse;
    }
    sums[(axis.rows ? kRows : kColumns) + i] = Total(reads) * times;
    sums[(axis.rows ? kInverseRows : kInverseColumns) + i] = Total(inverses) * times;
    if (axis.rows) roots_[3 * matrix + i] = std::sqrt(Total(total) / axis.size + o_.second_moment_eps);
  }
}

// Squares of the gradient and the momenta by the root of the factored second moment.
inline void Update::SumFactored(int64_t index) {
  const Chunk chunk = ChunkAt(index);
  Lanes grads[3] = {}, momenta[3] = {};
  for (int64_t line = chunk.first; line < chunk.last; ++line) {
    const int64_t start = Start(chunk.matrix, line);
    float own[3];
    for (int i = 0; i < 3; ++i) own[i] = LineFactor(chunk.matrix, line, i);
    for (int64_t c = 0; c < columns_; c += kLanes) {
      const int64_t n = columns_ - c;
      const Lanes g = Load(t_.grad + start + c, n);
      for (int i = 0; i < 3; ++i) {
        const Lanes f = own[i] * Load(by_column_.inverse[i] + chunk.matrix * by_column_.padded + c);
        const Lanes gf = g * f, mf = Load(t_.new_momenta + i * o_.size + start + c, n) * f;
        grads[i] += gf * gf;
        momenta[i] += mf * mf;
      }
    }
  }
  float* sums = sums_ + index * kSums;
  for (int i = 0; i < 3; ++i) sums[kFactoredGrad + i] = Total(grads[i]), sums[kFactoredMomenta + i] = Total(momenta[i]);
}

// The same of a tensor of rank below 2, whose "rows" are averages of every square, which it updates.
inline void Update::FactorVector(int64_t index) {
  const Chunk chunk = ChunkAt(index);
  const int64_t first = Start(0, chunk.first), last = std::min(o_.size, Start(0, chunk.last));
  float* sums = sums_ + index * kSums;
  for (int i = 0; i < 3; ++i) {
    const float keep = s_.keep[4 + i];
    Lanes grads{}, momenta{}, reads{}, inverses{};
    for (int64_t at = first; at < last; at += kLanes) {
      const int64_t n = last - at;
      const Lanes g = Load(t_.grad + at, n);
      const Lanes average = keep * Load(t_.rows + i * o_.size + at, n) + (1 - keep) * (g * g + kFactoredEps);
      Store(t_.new_rows + i * o_.size + at, average, n);
      const Lanes read = First(average * s_.unbias[4 + i], n);
      const Lanes f = First(InverseRoot(read + o_.second_moment_eps), n);
      const Lanes gf = g * f, mf = Load(t_.new_momenta + i * o_.size + at, n) * f;
      grads += gf * gf;
      momenta += mf * mf;
      reads += read * read;
      inverses += f * f;
    }
    sums[kFactoredGrad + i] = Total(grads), sums[kFactoredMomenta + i] = Total(momenta);
    sums[kRows + i] = sums[kColumns + i] = Total(reads);
    sums[kInverseRows + i] = sums[kInverseColumns + i] = Total(inverses);
  }
}
