"""All runs side by side: choose, sort, search and export them; curves; what a sweep shows.

Type:
    make look
    marimo run notebooks/compare.py -- --group lr-study
"""

import marimo

app = marimo.App(width="full", app_title="{{ cookiecutter.project_slug }}: runs")


@app.cell
def _():
    import marimo as mo

    from {{ cookiecutter.project_slug }}.harness.reporting import columns, figures, folding
    from {{ cookiecutter.project_slug }}.harness.runs.index import list_runs
    from {{ cookiecutter.project_slug }}.harness.study import ROOT
    from {{ cookiecutter.project_slug }}.harness.training.results import read_history

    return ROOT, columns, figures, folding, list_runs, mo, read_history


@app.cell
def _(ROOT, list_runs, mo):
    group = mo.cli_args().get("group")
    entries = [each for each in list_runs(ROOT) if group in (None, each.texts.get("group"))]
    mo.stop(not entries, mo.md(f"No run in `runs/`{f' of the group {group}' if group else ''}."))
    return (entries,)


@app.cell
def _(columns, entries, mo):
    chosen_columns = mo.ui.multiselect(
        list(columns.count_columns(entries)),
        value=["run", "status", *columns.differing(entries), *columns.metric_columns(entries)],
        label="Columns",
        full_width=True,
    )
    mo.vstack([mo.md(f"# {len(entries)} runs"), chosen_columns])
    return (chosen_columns,)


@app.cell
def _(chosen_columns, columns, entries, mo):
    table = mo.ui.table(
        [
            {name: columns.value_of(entry, name) for name in ("run", *chosen_columns.value)}
            for entry in entries
        ],
        page_size=20,
        label="Choose the runs whose curves you want to see",
    )
    table
    return (table,)


@app.cell
def _(entries, table):
    wanted = {f"runs/{row['run']}" for row in table.value}
    shown = [entry for entry in entries if not wanted or entry.folder in wanted]
    return (shown,)


@app.cell
def _(ROOT, mo, read_history, shown):
    histories = {each.folder: read_history(ROOT / each.folder) for each in shown}
    names = dict.fromkeys(name for rows in histories.values() for name in (rows[0] if rows else ()))
    curve = mo.ui.dropdown(
        [name for name in names if name not in ("epoch", "step")],
        value=next((name for name in names if name.startswith("validation_")), None),
        label="Curve",
    )
    curve
    return curve, histories


@app.cell
def _(curve, figures, histories, mo):
    mo.stop(curve.value is None, mo.md("None of these runs has finished an epoch."))
    mo.Html(figures.draw_overlay(histories, curve.value).decode())
    return


@app.cell
def _(columns, mo, shown):
    numbers = [
        name
        for name in (*columns.differing(shown), *columns.metric_columns(shown))
        if all(isinstance(columns.value_of(each, name), (int, float, type(None))) for each in shown)
    ]
    axes = mo.ui.multiselect(numbers, value=numbers, label="Axes of the sweep", full_width=True)
    axes
    return (axes,)


@app.cell
def _(axes, columns, figures, mo, shown):
    mo.stop(len(axes.value) < 2, mo.md("With two numbers that differ, a sweep is drawn here."))
    mo.Html(
        figures.draw_parallel(
            axes.value, [[columns.value_of(each, name) for name in axes.value] for each in shown]
        ).decode()
    )
    return


@app.cell
def _(columns, folding, mo, shown):
    folds = folding.fold(shown, ["seed"])
    mo.stop(not folds, mo.md("No run is finished, so there is nothing to fold over seeds."))
    parameters = columns.differing([each.first for each in folds], without=["seed"])
    metrics = columns.metric_columns(shown)
    header, rows = folding.to_rows(folds, parameters, metrics)
    verdicts = [*folding.describe_pairs(folds, parameters, metrics)]
    mo.vstack(
        [
            mo.md("## Over seeds"),
            mo.ui.table([dict(zip(header, row, strict=True)) for row in rows], selection=None),
            mo.md("\n".join(f"- {line}" for line in verdicts)),
        ]
    )
    return


if __name__ == "__main__":
    app.run()
