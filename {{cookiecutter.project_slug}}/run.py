"""One configuration, or a sweep with -m: start reading here.

Type:
    python run.py model.lr=1.0e-3
    python run.py -m model={{ cookiecutter.__baseline }},{{ cookiecutter.__model }} seed=0,1,2
A run that is finished is shown, one that was interrupted is resumed; force=true starts afresh.
"""

from omegaconf import DictConfig

from {{ cookiecutter.project_slug }}.harness import configuration
from {{ cookiecutter.project_slug }}.harness.debugging import INSTEAD
from {{ cookiecutter.project_slug }}.harness.runs.run import Metrics, Run


@configuration.entrypoint
def main(config: DictConfig) -> float:
    """Resolve the configuration, open the run's folder, train or show; returns the best value."""
    config = configuration.resolve(config)
    if instead := INSTEAD.get(config.get("debug") or config.get("task")):
        return instead(config)  # and leave no run behind
    with configuration.open_run(config) as run:
        metrics = run.finished_metrics or train(config, run)
    configuration.log_metrics(metrics)
    return metrics["validation"][config.training.monitor]


def train(config: DictConfig, run: Run) -> Metrics:
    """Seed, data, model, train, evaluate, record."""
    # torch takes seconds to import: --help, --cfg, tab completion and most mistakes do without it
    from {{ cookiecutter.project_slug }}.harness.runs.record import Record
    from {{ cookiecutter.project_slug }}.harness.training.determinism import set_up

    device = set_up(config.device, config.deterministic, config.num_threads, config.seed)
    data, validation = (configuration.open_split(config, name) for name in ("train", "validation"))
    trainer = configuration.build_trainer(config, data, device, run.folder)
    with Record(run) as record, configuration.track(config, trainer, record):
        if config.preflight:
            from {{ cookiecutter.project_slug }}.harness.checks.preflight import preflight

            preflight(record, device, data)
        trainer.resume()
        record["ended_by"] = trainer.fit(data, validation)
        metrics = {"validation": trainer.evaluate(validation)}
        if config.test:
            metrics["test"] = trainer.evaluate(configuration.open_split(config, "test"))
        record.finish(metrics)
    return metrics


if __name__ == "__main__":
    main()  # pylint: disable=no-value-for-parameter
