"""Makes demo homes, laid out like a tt-metal root, around the children in ``tests/children``."""

from __future__ import annotations

import shutil
from pathlib import Path

CHILDREN = Path(__file__).parents[1] / "children"
SCRIPT = Path("models/tt_transformers/demo/simple_text_demo.py")
MODEL_CONFIG = Path("models/tt_transformers/tt/model_config.py")

# As in tt-metal: the same report file whatever is run, and a test file outside any package. The plugins of this
# project's own tests cost each child a second, and no tt-metal has them.
PYTEST_INI = """\
[pytest]
addopts = --import-mode=importlib -vvs -rA --durations=0 --junitxml=generated/test_reports/most_recent_tests.xml
    -p no:anyio -p no:hypothesispytest -p no:platformdirs -p no:pytest_cov -p no:xdist -p no:xdist.looponfail
"""
# How a checkout of each generation asks for its model.
READS_MODEL = {
    "2025": 'import os\n\nLLAMA_DIR = os.getenv("LLAMA_DIR")\nHF_MODEL = os.getenv("HF_MODEL")\n',
    "2026": 'import os\n\nHF_MODEL = os.getenv("HF_MODEL")\n',
}
READS_MODEL["2026_02"] = READS_MODEL["2026"]


def make_home(path: Path, child: str, *, generation: str = "2025") -> Path:
    """Lays out a demo home whose demo is ``tests/children/<child>.py``.

    Args:
        generation: "2025" reads LLAMA_DIR or HF_MODEL, "2026" and "2026_02" (February) HF_MODEL only. What each makes
            of its sampling parameters is in ``tests/children/samplers_<generation>.py``, with which the demo ends.
    """
    # One child is a conftest.py, not a demo.
    demo, conftest = ("passes", child) if child == "conftest_breaks" else (child, "home_conftest")
    samplers = f"samplers_{generation}"
    (path / SCRIPT).parent.mkdir(parents=True)
    (path / MODEL_CONFIG).parent.mkdir(parents=True)
    (path / SCRIPT).write_text("\n\n".join((CHILDREN / f"{name}.py").read_text() for name in (demo, samplers)))
    shutil.copyfile(CHILDREN / f"{conftest}.py", path / "conftest.py")
    shutil.copyfile(CHILDREN / "demo_lines.py", path / "demo_lines.py")
    (path / "pytest.ini").write_text(PYTEST_INI)
    (path / MODEL_CONFIG).write_text(READS_MODEL[generation])
    return path
