"""False alarms: every check, over many seeds, on correct models. None may fail.

Type, where a study is installed:
    python noise.py 30
"""

import functools
import multiprocessing
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor

import torch
from cases import ALL, make_case

from my_study.harness import checks
from my_study.harness.checks import Case, Outcome, preflight
from my_study.harness.configuration import checking, composing
from my_study.harness.study import ROOT
from my_study.harness.training import determinism

STUDIES = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
Job = tuple[str, int]  # a model and a seed


@functools.cache
def study_values(model: str, seed: int) -> dict[str, object]:
    """The configuration of a model of the study."""
    config = composing.compose([f"model={model}", f"seed={seed}"])
    checking.check_config(config)
    return composing.to_values(config)


def case_of(job: Job) -> Case:
    """A model of the zoo or of the study, with its rows."""
    name, seed = job
    for model in ALL:
        if model.__name__ == name:
            return make_case(model, seed)
    return preflight.make_case(study_values(name, seed), torch.device("cpu"))


def check(job: Job) -> tuple[Job, list[Outcome]]:
    """Every check on one model with one seed."""
    os.chdir(ROOT)
    # fork, because workers started by spawn would import torch again
    multiprocessing.set_start_method("fork", force=True)
    determinism.set_determinism(True, num_threads=1)
    return job, checks.run(case_of(job), slow=True)


def main(num_seeds: int) -> int:
    """Prints a line for each check; returns how many alarms were raised."""
    names = [*(model.__name__ for model in ALL), *STUDIES]
    jobs = [(name, seed) for seed in range(num_seeds) for name in names]
    runs: dict[str, list[Outcome]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        for (name, seed), outcomes in pool.map(check, jobs):
            for item in outcomes:
                runs[item.check].append(item)
                if item.check not in checks.SLOW:
                    seconds[name] += item.seconds / num_seeds
                if item.outcome == "failed":
                    print(f"{name}, seed {seed}: {item.detail}", flush=True)
    print(f"{'check':48} {'runs':>5} {'alarms':>6} {'mean s':>7} {'max s':>6}")
    alarms = 0
    for name, found in runs.items():
        ran = [item for item in found if item.outcome in ("passed", "failed")]
        failed = sum(item.outcome == "failed" for item in ran)
        alarms += failed
        spent = [item.seconds for item in ran] or [0.0]
        mean = sum(spent) / len(spent)
        print(f"{name:48} {len(ran):5} {failed:6} {mean:7.3f} {max(spent):6.2f}")
    print("\nseconds of the fast checks, a model: ", end="")
    print(", ".join(f"{name} {seconds[name]:.1f}" for name in names))
    return alarms


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1])) else 0)
