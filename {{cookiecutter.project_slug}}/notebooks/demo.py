"""A page to try a finished run: give it an instance, see what it says and what happens inside.

Type:
    make demo RUN=runs/NAME
    marimo run notebooks/demo.py -- --run runs/NAME
"""

import marimo

app = marimo.App(width="medium", app_title="{{ cookiecutter.project_slug }}: demo")


@app.cell
def _():
    import marimo as mo

    from {{ cookiecutter.project_slug }}.harness.errors import StudyError
    from {{ cookiecutter.project_slug }}.harness.inference import load_run
    from {{ cookiecutter.project_slug }}.harness.inference.answering import with_classes
    from {{ cookiecutter.project_slug }}.harness.inference.predicting import encode
    from {{ cookiecutter.project_slug }}.harness.reporting import inside, widgets
    from {{ cookiecutter.project_slug }}.harness.runs.index import list_runs
    from {{ cookiecutter.project_slug }}.harness.study import ROOT

    return ROOT, StudyError, encode, inside, list_runs, load_run, mo, widgets, with_classes


@app.cell
def _(ROOT, list_runs, mo):
    finished = [each.folder for each in list_runs(ROOT) if each.status == "finished"]
    typed = str(mo.cli_args().get("run") or "")
    mo.stop(not (finished or typed), mo.md("No run in `runs/` is finished: type `python run.py`."))
    chosen = mo.ui.dropdown(
        list(dict.fromkeys([*finished, *filter(None, [typed])])),
        value=typed or finished[-1],
        label="Run",
        full_width=True,
    )
    chosen
    return (chosen,)


@app.cell
def _(ROOT, StudyError, chosen, load_run, mo, widgets):
    try:
        run = load_run(ROOT / chosen.value)
        examples = widgets.read_examples(run)
    except StudyError as error:
        mo.stop(True, mo.callout(str(error), kind="danger"))
    row = mo.ui.slider(0, len(next(iter(examples.values()))) - 1, label="Begin with example")
    row
    return examples, row, run


@app.cell
def _(row, run, widgets):
    row.value  # another example clears what was drawn
    canvas = widgets.make_canvas(run)
    canvas
    return (canvas,)


@app.cell
def _(examples, mo, row, run, widgets):
    inputs = widgets.make_inputs(run, examples, row.value)
    mo.vstack(inputs.elements.values())
    return (inputs,)


@app.cell
def _(StudyError, canvas, encode, examples, inputs, mo, row, run, widgets, with_classes):
    try:
        fields = widgets.read_inputs(run, inputs.value, canvas, examples, row.value)
        batch = encode(run, fields)
        outputs = with_classes(run.spec, run.predict(fields))
    except (StudyError, ValueError) as error:
        mo.stop(True, mo.callout(str(error), kind="warn"))
    answer = widgets.show_answer({name: values[0] for name, values in outputs.items()})
    mo.vstack([widgets.show_pictures(fields), answer])
    return batch, fields


@app.cell
def _(StudyError, batch, fields, inside, mo, run, widgets):
    try:
        shown = widgets.show_attribution(inside.attribute(run, batch), fields)
    except StudyError as error:
        shown = mo.md(str(error))
    mo.vstack([mo.md("### What speaks for it (blue) and against it (orange)"), shown])
    return


@app.cell
def _(inside, mo, run):
    layer = mo.ui.dropdown(inside.layers(run.model), value=inside.layers(run.model)[0])
    mo.hstack([mo.md("### Activations of"), layer], justify="start")
    return (layer,)


@app.cell
def _(StudyError, batch, inside, layer, mo, run, widgets):
    try:
        seen = widgets.show_layer(inside.activations(run, batch, layer.value))
    except StudyError as error:
        seen = mo.md(str(error))
    seen
    return


@app.cell
def _(batch, inside, mo, run, widgets):
    mo.vstack([mo.md("### Attention"), widgets.show_attention(inside.attention(run, batch))])
    return


if __name__ == "__main__":
    app.run()
