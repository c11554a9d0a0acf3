// peer_onednn f32|bf16 M N K: oneDNN's matrix product, weights packed before, GFLOP/s on the last
// line: the median of nine. Threads: OMP_NUM_THREADS. g++ -O2 bench/peer_onednn.cpp -ldnnl
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>
#include <vector>
#include "dnnl.hpp"

using namespace dnnl;
typedef memory::data_type type;
typedef memory::format_tag tag;

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  type t = strcmp(argv[1], "bf16") ? type::f32 : type::bf16;
  long M = atol(argv[2]), N = atol(argv[3]), K = atol(argv[4]);
  engine e(engine::kind::cpu, 0);
  stream s(e);
  memory::desc x({M, K}, t, tag::ab), c({M, N}, type::f32, tag::ab), any({K, N}, t, tag::any);
  matmul::desc d(x, any, c);
  matmul::primitive_desc pd(d, e);
  memory mx(x, e), mw(pd.weights_desc(), e), mc(c, e);
  memory rows({{K, N}, type::f32, tag::ba}, e), xf({{M, K}, type::f32, tag::ab}, e);
  float *w = (float *)rows.get_data_handle(), *v = (float *)xf.get_data_handle();
  for (long i = 0; i < N * K; i++) w[i] = (float)((i * 7919 + 13) % 1009) / 1009 - 0.5f;
  for (long i = 0; i < M * K; i++) v[i] = (float)((i * 7907 + 11) % 1013) / 1013 - 0.5f;
  reorder(rows, mw).execute(s, rows, mw);
  reorder(xf, mx).execute(s, xf, mx);
  matmul product(pd);
  std::vector<double> times;
  for (int r = 0; r < 10; r++) {
    double t0 = now();
    product.execute(s, {{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, mw}, {DNNL_ARG_DST, mc}});
    s.wait();
    if (r) times.push_back(now() - t0);
  }
  std::sort(times.begin(), times.end());
  printf("%.2f\n", 2.0 * M * N * K / times[times.size() / 2] / 1e9);
  return 0;
}
