"""peer_sklearn.py F.npy LABELS.npy [C]: scikit-learn's LogisticRegression (lbfgs, L2) on the
features [n, d] and labels [n_labels, n] that bench/probe wrote. Prints the objective of each label
as bench/probe does, then seconds a label, the last line. OMP_NUM_THREADS sets the threads."""
import sys
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

x, y = np.load(sys.argv[1]), np.load(sys.argv[2])
C = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
best = 1e30
for _ in range(1 if len(y) > 4 else 2):
    models, start = [], time.perf_counter()
    for labels in y:
        models.append(LogisticRegression(C=C, max_iter=1000).fit(x, labels))
    best = min(best, time.perf_counter() - start)
for labels, m in zip(y, models):
    w, b = m.coef_[0].astype(np.float64), float(m.intercept_[0])
    z = x.astype(np.float64) @ w + b
    loss = np.logaddexp(0, np.where(labels > 0, -z, z)).sum()
    print("objective %.10g after %d" % (0.5 * w @ w + C * loss, m.n_iter_[0]))
print("%.6f" % (best / len(y)))
