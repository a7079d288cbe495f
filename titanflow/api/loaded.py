"""``titanflow.load``: a run's model and tokenizer, by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.api.outcome import RunLike, export_of, folder_of
from titanflow.architectures.huggingface import is_hugging_face
from titanflow.common.errors import ConfigError, DataError, Problem, did_you_mean
from titanflow.report.contents import RunContents, StageContents, read_contents
from titanflow.runs.contract import TRAINED
from titanflow.runs.results import PublishResult, TrainResult

if TYPE_CHECKING:
    from transformers import GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

    class LanguageModel(PreTrainedModel, GenerationMixin):
        """What transformers loads is both; it has no class of this name."""


def load(
    run: RunLike,
    stage: str | None = None,
    *,
    dtype: Any = "float32",
    device: Any = "cpu",
    remote_code: bool = False,
) -> tuple[LanguageModel, PreTrainedTokenizerBase]:
    """Loads a run's model, in inference mode, and its tokenizer.

    Args:
        run: what :func:`titanflow.run` or :func:`titanflow.plan` returned, or a run's folder.
        stage: the name of a training stage, or of a publication; unless given, the folder that was published last, or
            else the export of the last finished training.
        dtype: the type that it computes in; ``auto`` takes the folder's own, as ``titanflow chat`` does.
        device: where it computes, as torch names it.
        remote_code: whether code in the folder may be run that isn't this version's own.

    Raises:
        ConfigError: no such stage, nothing exported, a folder with code that may not be run, or a type or device that
            torch doesn't have here.
        DataError: the folder's weights aren't those of its model.
    """
    folder = exported(read_contents(folder_of(run)), stage)
    from titan.weights.hf_folder import load_folder, load_tokenizer
    from titan.weights.placement import torch_device, torch_type

    computes_in, place = torch_type(dtype), torch_device(device)
    tokenizer = load_tokenizer(folder)
    model, wrong = load_folder(folder, computes_in, place, remote_code)
    if any(wrong.values()):
        names = "; ".join(f"{kind} {', '.join(keys[:5])}" for kind, keys in wrong.items() if keys)
        raise DataError(Problem(f"weights don't fit: {names}", origin=str(folder), expected="the weights of its model"))
    return model, tokenizer


def exported(run: RunContents, stage: str | None) -> Path:
    """The folder that transformers loads: of a stage, or else of the last that has one.

    Raises:
        ConfigError: there is none; says what each stage is.
    """
    stages = {one.name: one for one in run.stages if one.kind in (*TRAINED, "publish")}
    if stage is not None and stage not in stages:
        expected = f"one of {', '.join(stages)}" if stages else "a run that trains or publishes a model"
        raise ConfigError(Problem(f"found {stage!r}", "stage", expected=expected, hint=did_you_mean(stage, stages)))
    asked = [stages[stage]] if stage is not None else list(reversed(stages.values()))
    for one in asked:
        if folder := _published(run, one) if one.kind == "publish" else export_of(one):
            return folder
        # Of the last finished training no earlier one is a substitute.
        if isinstance(one.result, TrainResult):
            break
    told = ", ".join(f"{one.name} is {_state(one)}" for one in asked) or "the run trains no model"
    hint = "of a finished training, `titanflow export STAGE_FOLDER OUT` writes a folder that transformers loads"
    raise ConfigError(Problem(f"found no exported model: {told}", "stage", str(run.folder), "an export", hint))


def _published(run: RunContents, stage: StageContents) -> Path | None:
    """The folder that the run published into, if the model there is still the one that it trained last."""
    found, record = stage.result, run.manifest.stages.get(stage.name)
    if (
        not isinstance(found, PublishResult)
        or record is None
        or (found.target, found.status) != ("folder", "published")
    ):
        return None
    # A night before is a parent, too, in a run of its own.
    own = {name: digest for name, digest in record.parents.items() if "/" not in name}
    is_newest = all(name in run.manifest.stages and run.manifest.stages[name].digest == own[name] for name in own)
    is_whole = run.manifest.is_done(stage.name, record.fingerprint) and is_hugging_face(Path(found.location))
    return Path(found.location) if is_newest and is_whole else None


def _state(stage: StageContents) -> str:
    if isinstance(stage.result, TrainResult):
        return f"{stage.state} at step {stage.result.step}"
    return f"{stage.state} ({stage.result.location})" if isinstance(stage.result, PublishResult) else stage.state
