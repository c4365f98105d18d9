"""Never gets through its own import."""

import time

import demo_lines

print("waiting for the device", flush=True)
time.sleep(600)


@demo_lines.cases
def test_demo_text(request, batch_size):
    pass
