"""What a stage will cost before it runs: parameters, operations, memory of a rank, time and money."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titanflow.architectures.weights import model_weights
from titanflow.config.keys.training import Lora
from titanflow.plan.forecast.device import DeviceSpec
from titanflow.plan.forecast.duration import Duration, estimated, measured_duration
from titanflow.plan.forecast.flops import Counts, count
from titanflow.plan.forecast.history import History, work_digest
from titanflow.plan.forecast.layout import Layout
from titanflow.plan.forecast.memory import Memory, memory
from titanflow.run.checkpoints import complete_folders

if TYPE_CHECKING:
    from titanflow.config.experiment import Experiment
    from titanflow.config.module import Module
    from titanflow.run.contract import StageRun


@dataclass(frozen=True)
class Forecast:
    """A stage's forecast; what isn't known is None, and ``unknown`` says why.

    ``like`` is the digest of all that its speed depends on: a later stage of the same digest takes it from this one.
    ``tokens`` and ``flops`` are those that are left to train, at ``tokens_per_second``; ``seconds`` are from start to
    end with start-up and export, ``source`` says where they are from. ``cost`` is in the currency of
    ``price_per_hour``, for all ``devices``, held from start to end; ``device`` is the kind of one.
    ``whole_parameters`` are those of ``trained_parameters`` that are no adapter's: LoRA's ``modules_to_save``.
    """

    like: str
    devices: int = 1
    parameters: int | None = None
    trained_parameters: int | None = None
    tokens: int | None = None
    flops: int | None = None
    memory: Memory | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    source: str = ""
    price_per_hour: float | None = None
    cost: float | None = None
    unknown: str = ""
    device: str = ""
    whole_parameters: int = 0

    def as_json(self) -> dict[str, Any]:
        """The forecast as ``titanflow plan --json`` and the manifest hold it."""
        values = dataclasses.asdict(self)
        if self.memory is not None:
            values["memory"] = {**values["memory"], "certain": self.memory.certain, "total": self.memory.total}
        return values


def forecast_stage(
    run: StageRun, resumes: bool, experiment: Experiment, device: DeviceSpec, history: History
) -> Forecast:
    """Forecasts one stage of a plan.

    Args:
        run: the stage.
        resumes: whether it goes on from its newest checkpoint.
        experiment: whose price an hour, and whose modules, count.
        device: what it will run on.
        history: what other runs took.
    """
    module = experiment.stage(run.stage)
    launcher = run.config.get("launcher") or {}
    devices = int(launcher.get("nproc_per_node") or 1) * int(launcher.get("nnodes") or 1)
    known = Forecast(like=work_digest(run, experiment, device.name), devices=devices, device=device.name)
    if module is not None and module.trains:
        return _priced(_training(known, run, resumes, module, device, history), experiment.spec.price_per_hour)
    found = history.of(run, known.like)
    if found is not None:
        known = dataclasses.replace(known, seconds=found.wall, source=f"measured on {found.run}")
    return _priced(known, experiment.spec.price_per_hour)


def _training(
    known: Forecast, run: StageRun, resumes: bool, module: Module, device: DeviceSpec, history: History
) -> Forecast:
    layout = Layout.of(module.config)
    counts, on_device, unknown = model_forecast(module, device.kind)
    steps = _steps_left(run, resumes)
    tokens = steps * layout.tokens_per_step
    found = history.of(run, known.like)
    duration: Duration | None
    if found is not None:
        duration = measured_duration(found, steps, tokens)
    else:
        duration = estimated(counts, tokens, layout, device) if counts else None
    known = dataclasses.replace(known, tokens=tokens, memory=on_device, unknown=unknown)
    if duration is not None:
        known = dataclasses.replace(known, **dataclasses.asdict(duration))
    if counts is not None:
        known = dataclasses.replace(
            known,
            parameters=counts.parameters,
            trained_parameters=counts.trained,
            whole_parameters=counts.whole,
            flops=counts.flops_per_token * (known.tokens or 0),
        )
    return known


def model_forecast(module: Module, device: str) -> tuple[Counts | None, Memory | None, str]:
    """A training module's counts and a rank's memory, or why there are none.

    Args:
        module: the module.
        device: ``cpu`` or ``cuda``.
    """
    config, family = module.config, module.config["model"]["name"]
    shapes = model_weights(family, module.model_args)
    if shapes is None:
        return None, None, f"no formula for the family {family}"
    counts = count(family, module.model_args, shapes, int(config["training"]["seq_len"]), Lora(**config["lora"]))
    return counts, memory(config, family, module.model_args, shapes, counts, device), ""


def _steps_left(run: StageRun, resumes: bool) -> int:
    done = next(iter(complete_folders(run.folder / "checkpoint")), 0) if resumes else 0
    return max(0, int(run.config["training"]["steps"]) - done)


def _priced(forecast: Forecast, price_per_hour: float | None) -> Forecast:
    if price_per_hour is None:
        return forecast
    cost = None if forecast.seconds is None else cost_of(forecast.seconds, forecast.devices, price_per_hour)
    return dataclasses.replace(forecast, price_per_hour=price_per_hour, cost=cost)


def cost_of(seconds: float, devices: int, price_per_hour: float) -> float:
    """What so many devices cost for so long."""
    return seconds / 3600 * devices * price_per_hour
