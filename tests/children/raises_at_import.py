"""Cannot be imported: the machine has no accelerator."""

print("2026-11-22 02:18:43.720 | critical |   Always | TT_FATAL: No chips detected in the cluster (assert.hpp:104)")
raise RuntimeError("TT_FATAL @ tt_cluster.cpp:118: num_chips > 0\ninfo:\nNo chips detected in the cluster")
