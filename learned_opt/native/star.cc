// `Update` as an XLA custom call on CPUs, for a stack of tensors of one shape, which `vmap` makes.

#include <atomic>
#include <memory>
#include <thread>

#include "network.h"
#include "statistics.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;

constexpr int64_t kParallel = 65536;  // elements from which on other threads help

// f(0), ..., f(n - 1), some of them by threads of the pool, but only those that come while there is something to do:
// none is waited for that has not begun, as all may be busy, or wait like this one.
void Share(ffi::ThreadPool& pool, int64_t n, const Call& f) {
  struct Work {
    std::atomic<int64_t> next{0}, done{0};
  };
  const auto work = std::make_shared<Work>();
  const auto run = [work, n, &f] {
    for (int64_t i; (i = work->next.fetch_add(1)) < n; work->done.fetch_add(1)) f(i);
  };
  for (int64_t i = 1; i < std::min(n, pool.num_threads()); ++i) pool.Schedule([run] { run(); });
  run();
  while (work->done.load() < n) std::this_thread::yield();
}

void InTurn(int64_t n, const Call& f) {
  for (int64_t i = 0; i < n; ++i) f(i);
}

template <typename A>
auto* At(A& array, int64_t members, int64_t i) {
  return array.typed_data() + array.element_count() / members * i;
}

ffi::Error Star(ffi::ThreadPool pool, Array scalars, Array grad, Array param, Array momenta, Array second, Array rows,
                Array columns, Result update, Result decayed, Result magnitude, Result new_momenta, Result new_second,
                Result new_rows, Result new_columns, Result products, ffi::Span<const int64_t> whole,
                ffi::Span<const float> real) {
  const Options o{whole[0], whole[1], whole[2], whole[3] != 0, whole[4], whole[5], whole[6] != 0, whole[7] != 0,
                  whole[8] != 0, real[0], real[1], real[2], real[3], real[4], real[5], real[6], real[7], real[8]};
  const int64_t n = grad.element_count() / o.size;
  const auto member = [&](int64_t i, const Each& each) {
    const Tensor t{At(grad, n, i), At(param, n, i), At(momenta, n, i), At(second, n, i), At(rows, n, i),
                   At(columns, n, i), At(*update, n, i), At(*decayed, n, i), At(*magnitude, n, i),
                   At(*new_momenta, n, i), At(*new_second, n, i), At(*new_rows, n, i), At(*new_columns, n, i),
                   At(*products, n, i)};
    Update(o, *reinterpret_cast<const Scalars*>(At(scalars, n, i)), t).Run(each);
  };
  if (n > 1 && n * o.size >= kParallel) {
    Share(pool, n, [&](int64_t i) { member(i, InTurn); });
  } else {
    const Each share = [&pool](int64_t count, const Call& f) { Share(pool, count, f); };
    for (int64_t i = 0; i < n; ++i) member(i, o.size >= kParallel ? share : Each(InTurn));
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(LearnedOptStar, Star,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()  // scalars
                                  .Arg<Array>()  // grad
                                  .Arg<Array>()  // param
                                  .Arg<Array>()  // momenta
                                  .Arg<Array>()  // second
                                  .Arg<Array>()  // rows
                                  .Arg<Array>()  // columns
                                  .Ret<Array>()  // update
                                  .Ret<Array>()  // decayed
                                  .Ret<Array>()  // magnitude
                                  .Ret<Array>()  // new_momenta
                                  .Ret<Array>()  // new_second
                                  .Ret<Array>()  // new_rows
                                  .Ret<Array>()  // new_columns
                                  .Ret<Array>()  // products
                                  .Attr<ffi::Span<const int64_t>>("whole")
                                  .Attr<ffi::Span<const float>>("real"));
