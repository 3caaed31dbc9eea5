"""measure_fidelity: notes what golden tests compare, and passes their verdict on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import measure_fidelity  # noqa: E402


@pytest.fixture
def recorder():
    recorder = measure_fidelity.Recorder()
    recorder.family = ("layer", "conv")
    return recorder


def test_the_largest_error_and_the_share_of_the_bound(recorder):
    compare = recorder.watch(np.testing.assert_allclose)
    compare(np.array([1.0, 4.0]), np.array([1.0, 4.1]), rtol=0, atol=0.4)
    compare(np.array([1.0, 4.0]), np.array([1.0, 4.0]), rtol=0, atol=0.1)
    count, error, used = recorder.families["layer", "conv"]
    assert count == 2
    assert error == pytest.approx(0.1 / 4.1)
    assert used == pytest.approx(0.25)
    assert "| layer | conv | 2 | 2.4e-02 | 25% |" in recorder.table()


def test_equal_arrays_and_zeros(recorder):
    recorder.watch(np.testing.assert_array_equal)(np.zeros(3), np.zeros(3))
    recorder.watch(np.testing.assert_allclose)(np.float32(0), np.float32(0), rtol=1e-5)
    assert recorder.families["layer", "conv"] == [2, 0.0, 0.0]


def test_a_comparison_that_fails_still_fails(recorder):
    with pytest.raises(AssertionError):
        recorder.watch(np.testing.assert_allclose)(1.0, 2.0, rtol=0.1)


@pytest.mark.parametrize("want, status", [(2.0, 0), (3.0, 1)])
@pytest.mark.medium
def test_the_command(tmp_path, want, status):
    """On a small test of its own, in place of the golden ones."""
    (tmp_path / "test_small.py").write_text(
        "import numpy as np\nimport pytest\n@pytest.mark.parametrize('case', ['conv_group'])\n"
        f"def test_case(case):\n    np.testing.assert_allclose(2.00001, {want}, rtol=1e-4)\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import measure_fidelity as m\n"
        f"m.TESTS = {{{str(tmp_path / 'test_small.py')!r}: 'layer'}}\n"
        "sys.exit(m.main(['--output', 'table.md']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("| layer | conv | 1 | 5.0e-06 | 5% |" in (tmp_path / "table.md").read_text()) == (status == 0)
