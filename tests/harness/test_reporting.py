"""What the paper shows: estimates over seeds, and the table in the README."""

from pathlib import Path

import pytest

from my_study.harness.errors import StudyError
from my_study.harness.reporting import tables
from my_study.harness.reporting.estimates import compare_to_baseline


def test_differences_are_paired_by_seed() -> None:
    values = {"linear": [0.90, 0.94, 0.92], "cnn": [0.95, 0.99, 0.97]}
    base, other = compare_to_baseline(values)
    assert base.difference is None
    assert base.value.mean == pytest.approx(0.92) and base.value.std == pytest.approx(0.02)
    # Student's t for 95 % and 2 degrees of freedom is 4.303
    assert base.value.half_width == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert other.difference is not None and other.difference.mean == pytest.approx(0.05)
    assert other.difference.half_width == pytest.approx(0, abs=1e-12)


def test_the_table_replaces_what_stands_between_the_markers_and_nothing_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "README.md"
    begin, end = tables.MARKERS
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    tables.put_into_readme(path, "new\n")
    assert path.read_text() == f"before\n{begin}\nnew\n{end}\nafter\n"
    path.write_text(f"{end}\n{begin}\n")
    with pytest.raises(StudyError, match="must be in it, in this order"):
        tables.put_into_readme(path, "new\n")
