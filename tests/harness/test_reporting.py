"""What the paper shows: estimates over seeds, and the table in the README."""

from pathlib import Path

import pytest

from my_study.harness.errors import StudyError
from my_study.harness.reporting import tables
from my_study.harness.reporting.estimates import compare_to_baseline
from my_study.harness.reporting.shown import Metric, Shown, read_shown
from my_study.harness.training.results import write_metrics


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


ACCURACY = Metric("accuracy", higher_is_better=True, unit="%", digits=1)
ERROR = Metric("error", higher_is_better=False, unit="mpg", digits=3)


def write_runs(folder: Path, **numbers: list[dict[str, float]]) -> dict[str, list[Path]]:
    """Finished runs of each experiment, a seed each, with these numbers on the test split."""
    folders: dict[str, list[Path]] = {}
    for name, seeds in numbers.items():
        for seed, values in enumerate(seeds):
            path = folder / f"{name}-{seed}"
            path.mkdir()
            write_metrics(path, {"test": values})
            folders.setdefault(name, []).append(path)
    return folders


def test_each_metric_is_shown_in_its_unit_and_with_its_direction(tmp_path: Path) -> None:
    folders = write_runs(
        tmp_path,
        a=[{"accuracy": 0.5, "error": 14.1}, {"accuracy": 0.5, "error": 14.1}],
        b=[{"accuracy": 0.6, "error": 12.0}, {"accuracy": 0.6, "error": 12.0}],
    )
    shown = Shown("cars", ("a", "b"), "test", (ACCURACY, ERROR))
    estimates = [(shown, tables.estimate(shown, folders))]
    head, _, first, second, *_ = tables.to_markdown(estimates).splitlines()
    assert "test accuracy (%) ↑" in head and "test error (mpg) ↓" in head
    assert first.startswith("| a | 2 | 50.0 ± 0.0 | 0.0 |  | 14.100 ± 0.000 | 0.000 |  |")
    assert "| 60.0 ± 0.0 | 0.0 | +10.0 ± 0.0 | 12.000 ± 0.000 | 0.000 | -2.100 ± 0.000 |" in second
    assert r"test accuracy (\%) $\uparrow$" in tables.to_latex(estimates)
    rows = tables.to_csv(estimates).splitlines()
    assert len(rows) == 5 and rows[2].startswith("cars,b,accuracy,2,0.6,")


def test_of_one_seed_the_number_is_shown_alone(tmp_path: Path) -> None:
    folders = write_runs(tmp_path, a=[{"accuracy": 0.5}], b=[{"accuracy": 0.625}])
    shown = Shown("x", ("a", "b"), "test", (ACCURACY,))
    estimates = [(shown, tables.estimate(shown, folders))]
    markdown, latex = tables.to_markdown(estimates), tables.to_latex(estimates)
    assert "| a | 1 | 50.0 |  |  |\n| b | 1 | 62.5 |  | +12.5 |\n" in markdown
    assert "b & 1 & 62.5 &  & +12.5 " in latex
    assert tables.to_csv(estimates).splitlines()[2] == "x,b,accuracy,1,0.625,,,0.125,,"
    assert not any("nan" in text or "±" in text for text in (markdown, latex))


def test_two_data_sets_have_a_table_each(tmp_path: Path) -> None:
    folders = write_runs(tmp_path, a=[{"accuracy": 0.5}], b=[{"error": 14.1}])
    groups = [Shown("x", ("a",), "test", (ACCURACY,)), Shown("y", ("b",), "test", (ERROR,))]
    text = tables.to_markdown([(each, tables.estimate(each, folders)) for each in groups])
    assert text.index("**x**") < text.index("accuracy") < text.index("**y**") < text.index("error")
    with pytest.raises(StudyError, match="a-0: has no validation accuracy; see data.metrics"):
        tables.estimate(Shown("x", ("a",), "validation", (ACCURACY,)), folders)


def test_experiments_of_one_data_set_are_shown_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results" / "inputs" / "stages" / "report.yaml"
    with pytest.raises(StudyError, match="type: dvc repro"):
        read_shown(["a"])
    path.parent.mkdir(parents=True)
    metric = "{accuracy: {higher_is_better: true, unit: '%', digits: 1}}"
    line = f"{{data: x, split: test, metrics: {metric}}}"
    path.write_text(
        f"shown:\n  a: {line}\n  b: {line}\n  c: {line.replace('test', 'validation')}\n"
    )
    assert read_shown(["a", "b"]) == [Shown("x", ("a", "b"), "test", (ACCURACY,))]
    with pytest.raises(StudyError, match="experiment=c: its metrics are shown otherwise"):
        read_shown(["a", "c"])
