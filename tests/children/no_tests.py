"""Has no test with the id that is asked for."""

import pytest


@pytest.mark.parametrize("batch_size", [1], ids=["accuracy-batch-1"])
def test_demo_text(request, batch_size):
    pass
