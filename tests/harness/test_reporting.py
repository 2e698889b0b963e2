"""What the paper shows: estimates over seeds, and the table in the README."""

from dataclasses import replace
from pathlib import Path

import pytest

from my_study.harness.errors import StudyError
from my_study.harness.reporting import origins, tables
from my_study.harness.reporting.estimates import compare_to_baseline, interval_of_share
from my_study.harness.reporting.shown import SPLITS, Metric, Shown, read_shown
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
    assert first == "| a | 2 | 50.0 ± 0.0 | 0.0 |  | 14.100 ± 0.000 | 0.000 |  |"
    assert "| 60.0 ± 0.0 | 0.0 | +10.0 ± 0.0 | 12.000 ± 0.000 | 0.000 | -2.100 ± 0.000 |" in second
    assert r"test accuracy (\%) $\uparrow$" in tables.to_latex(estimates)
    rows = tables.to_csv(estimates).splitlines()
    assert len(rows) == 5 and rows[2].startswith("cars,b,accuracy,seeds,2,0.6,")


def test_of_one_seed_the_number_is_shown_alone(tmp_path: Path) -> None:
    folders = write_runs(tmp_path, a=[{"accuracy": 0.5}], b=[{"accuracy": 0.625}])
    shown = Shown("x", ("a", "b"), "test", (ACCURACY,))
    estimates = [(shown, tables.estimate(shown, folders))]
    markdown, latex = tables.to_markdown(estimates), tables.to_latex(estimates)
    assert "| a | 1 | 50.0 |  |  |\n| b | 1 | 62.5 |  | +12.5 |\n" in markdown
    assert "b & 1 & 62.5 &  & +12.5 " in latex
    assert tables.to_csv(estimates).splitlines()[2] == "x,b,accuracy,seeds,1,0.625,,,0.125,,,,,"
    assert not any("nan" in text or "±" in text for text in (markdown, latex))
    assert "Which is better cannot be said from one seed." in markdown
    assert tables.to_pairs_csv(estimates).splitlines()[1] == "x,accuracy,b,a,0.125,,,,,not shown"


def test_two_data_sets_have_a_table_each(tmp_path: Path) -> None:
    folders = write_runs(tmp_path, a=[{"accuracy": 0.5}], b=[{"error": 14.1}])
    groups = [Shown("x", ("a",), "test", (ACCURACY,)), Shown("y", ("b",), "test", (ERROR,))]
    text = tables.to_markdown([(each, tables.estimate(each, folders)) for each in groups])
    assert text.index("**x**") < text.index("accuracy") < text.index("**y**") < text.index("error")
    with pytest.raises(StudyError, match="a-0: has no validation accuracy; see data.metrics"):
        tables.estimate(Shown("x", ("a",), "validation", (ACCURACY,)), folders)


ROWS = ({"train": 60, "validation": 20, "test": 20},)


def report(folder: Path, shown: Shown, **values: list[float]) -> tables.Estimates:
    """What is estimated of these accuracies, a seed each."""
    runs = {name: [{"accuracy": value} for value in group] for name, group in values.items()}
    return [(shown, tables.estimate(shown, write_runs(folder, **runs)))]


def test_beside_the_interval_over_seeds_stands_the_one_over_rows(tmp_path: Path) -> None:
    shown = Shown("x", ("a", "b"), "test", (ACCURACY,), rows=ROWS)
    estimates = report(tmp_path, shown, a=[0.5, 0.6], b=[0.85, 0.95])
    head, _, first, second, _, caption, *_ = tables.to_markdown(estimates).splitlines()
    assert head.split(" | ")[3:] == ["std", "over rows", "minus a |"]
    low, high = interval_of_share(0.55, 20)
    assert f"| {100 * low:.1f} to {100 * high:.1f} |" in first
    assert "68.3 to 98.8" in second  # as scipy.stats.binomtest(18, 20).proportion_ci() has it
    assert "over 2 seeds (Student's t). Measured on the 20 rows of the test split." in caption
    assert "Clopper and Pearson" in caption
    assert tables.to_csv(estimates).splitlines()[2].endswith(",20,0.683017,0.987651")


def test_a_metric_that_is_no_share_of_rows_has_no_interval_over_rows(tmp_path: Path) -> None:
    shown = Shown("x", ("a",), "test", (ACCURACY,), rows=ROWS)
    text = tables.to_markdown(report(tmp_path, shown, a=[0.51, 0.6]))  # 10.2 of 20 rows
    assert "over rows" not in text and "Clopper" not in text and "the 20 rows" in text


def test_folds_are_called_folds_and_their_rows_are_counted_together(tmp_path: Path) -> None:
    folds = tuple({"train": 10, "validation": 10, "test": size} for size in (10, 20))
    shown = Shown("x", ("a", "b"), "test", (ACCURACY,), "folds", folds)
    estimates = report(tmp_path, shown, a=[0.5, 0.5], b=[0.9, 0.6])
    text = tables.to_markdown(estimates)
    assert text.startswith("| experiment | folds |") and "seed" not in text
    assert "over 2 folds (Student's t, corrected for the training rows that they share)" in text
    assert "the 30 rows of all folds" in text and "fold by fold" in text
    low, high = interval_of_share((9 + 12) / 30, 30)
    assert f"| {100 * low:.1f} to {100 * high:.1f} |" in text
    # seeds that draw splits of their own are no folds: their rows are counted twice
    drawn = replace(shown, repeats="seeds")
    assert not drawn.num_rows and drawn.overlap == shown.overlap == 1.5


def test_better_is_said_only_of_what_the_corrected_test_shows(tmp_path: Path) -> None:
    shown = Shown("x", ("linear", "mlp", "cnn"), "test", (ACCURACY,))
    values = {"linear": [0.90, 0.94, 0.92], "mlp": [0.93, 0.95, 0.94]}
    *_, told, _, note = tables.to_markdown(
        report(tmp_path, shown, **values, cnn=[0.97, 0.98, 0.99])
    ).splitlines()
    assert "better" not in told and "Holm's correction for 3 pairs" in note
    assert "between mlp and linear (+2.0 ± 2.5, p = 0.074); cnn and linear" in told
    (tmp_path / "other").mkdir()
    estimates = report(tmp_path / "other", shown, **values, cnn=[0.98, 1.0, 0.99])
    told = tables.to_markdown(estimates).splitlines()[-3]
    assert told.startswith("By test accuracy (%): cnn better than linear (+7.0 ± 2.5, p = 0.020);")
    assert told.endswith("cnn and mlp (+5.0 ± 0.0, the same each time, so not tested).")
    rows = tables.to_pairs_csv(estimates).splitlines()
    assert [row.rpartition(",")[2] for row in rows[1:]] == ["not shown", "yes", "not shown"]


def test_of_many_experiments_only_the_pairs_of_the_best_are_told(tmp_path: Path) -> None:
    values = {name: [place + 0.1, place + 0.3, place] for place, name in enumerate("abcde")}
    shown = Shown("x", tuple(values), "test", (ERROR,))
    runs = {name: [{"error": value} for value in group] for name, group in values.items()}
    estimates = [(shown, tables.estimate(shown, write_runs(tmp_path, **runs)))]
    told = tables.to_markdown(estimates).splitlines()[-3]
    assert told.count("a and ") == 4 and "b and" not in told
    assert len(tables.to_pairs_csv(estimates).splitlines()) == 1 + 10


def test_each_number_leads_to_the_record_of_its_run(tmp_path: Path) -> None:
    folders = write_runs(tmp_path, a=[{"accuracy": 0.5}, {"accuracy": 0.25}])
    shown = Shown("x", ("a",), "test", (ACCURACY,))
    estimates = [(shown, tables.estimate(shown, folders))]
    known = {"a-1": "c0ffee"}
    assert origins.to_runs_csv(estimates, folders, known).splitlines() == [
        "data,experiment,seed,split,metric,value,record,fingerprint",
        "x,a,0,test,accuracy,0.5,,",
        "x,a,1,test,accuracy,0.25,results/records/a-1.json,c0ffee",
    ]
    links = origins.link_records(folders, known)
    assert links == {"a": "0 [1](results/records/a-1.json)"}
    assert f"| a | {links['a']} | 37.5 ± " in tables.to_markdown(estimates, links)


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
    shown = Shown("x", ("a", "b"), "test", (ACCURACY,))
    assert read_shown(["a", "b"]) == [shown]
    splits = "repeats: seeds\n    rows: [{train: 60, validation: 20, test: 20}]"
    SPLITS.write_text(f"splits:\n  a:\n    {splits}\n  b:\n    {splits}\n")
    assert read_shown(["a", "b"]) == [replace(shown, rows=ROWS)]
    SPLITS.write_text(f"splits:\n  a:\n    {splits}\n  b:\n    {splits.replace('60', '50')}\n")
    assert read_shown(["a", "b"]) == [shown], "they are not of the same rows"
    SPLITS.write_text("")
    with pytest.raises(StudyError, match="splits.yaml: cannot be read; type: dvc repro"):
        read_shown(["a", "b"])
    SPLITS.unlink()
    with pytest.raises(StudyError, match="experiment=c: its metrics are shown otherwise"):
        read_shown(["a", "c"])
