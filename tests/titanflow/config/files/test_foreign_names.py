"""Names that other trainers have: each leads to a key that exists, wherever it stands."""

import re
from pathlib import Path

import pytest

from titanflow.architectures.torchtitan import load_snapshot
from titanflow.config.files.foreign_names import FOREIGN, Foreign
from titanflow.config.files.schema import dataclass_schema, known_keys
from titanflow.config.ignored import NAMED
from titanflow.config.keys.experiment import ExperimentSpec
from titanflow.config.model_args import family
from titanflow.config.module import stage_schema

PAGE = Path(__file__).parents[4] / "docs" / "coming-from.md"
KEYED = [entry for entry in FOREIGN if entry.key]


def known(entry: Foreign) -> set[str]:
    if entry.home == "experiment":
        return set(known_keys(dataclass_schema(ExperimentSpec)))
    if entry.home == "training" and entry.key.startswith("model."):
        schemas = [family(name)["schema"] for name in load_snapshot()["models"]]
        arguments = {f"model.{key}" for schema in schemas for key in known_keys(schema)}
        return arguments | set(known_keys(stage_schema("pretrain")))
    return set(known_keys(stage_schema("pretrain" if entry.home == "training" else entry.home)))


@pytest.mark.parametrize("entry", KEYED, ids=lambda entry: entry.names.split()[0])
def test_each_leads_to_a_key_that_exists(entry: Foreign) -> None:
    assert entry.key in known(entry)


def test_no_name_means_two_things() -> None:
    names = [name for entry in FOREIGN for name in entry.names.split()]
    assert sorted(set(names)) == sorted(names)
    assert all(entry.key or entry.clause for entry in FOREIGN)


def test_what_primus_alone_reads_leads_to_its_list() -> None:
    (entry,) = [entry for entry in FOREIGN if "ignore: primus" in entry.clause]
    assert set(entry.names.split()) == set(NAMED["primus"].keys)


def test_the_page_shows_the_table() -> None:
    rows = [
        f"| {' '.join(f'`{name}`' for name in entry.names.split())} "
        f"| {f'`{shown(entry)}`' if entry.key else 'nothing'} | {entry.clause} |"
        for entry in FOREIGN
    ]
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert table == rows, "write into docs/coming-from.md:\n" + "\n".join(rows)


def shown(entry: Foreign) -> str:
    return entry.key if entry.home in ("training", "experiment") else f"{entry.home}.{entry.key}"


def test_every_key_that_the_page_names_is_known() -> None:
    text = PAGE.read_text(encoding="utf-8")
    every = {key for entry in FOREIGN for key in known(entry)} | set(known_keys(stage_schema("sft")))
    sections = {key.partition(".")[0] for key in every}
    named = re.findall(r"`([a-z_]+\.[a-z_.]+)`", re.sub(r"(?m)^\| `.*$", "", text))
    assert [key for key in named if key.partition(".")[0] in sections and key not in every] == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("pretrain.learning_rate=1e-4", "`learning_rate` is `pretrain.optimizer.lr` here"),
        ("pretrain.optimizer.learning_rate=1e-4", "`learning_rate` is `pretrain.optimizer.lr` here"),
        ("pretrain.training.eval_steps=5", "`eval_steps` is `pretrain.validation.freq` here"),
        ("pretrain.training.max-steps=5", "`max_steps` is `pretrain.training.steps` here"),
        ("pretrain.validation.batch_size=5", "`batch_size` is `pretrain.validation.local_batch_size` here"),
        ("pretrain.validation.seq_length=5", "`seq_length` is `pretrain.validation.seq_len` here"),
        ("sft.peft={enabled: true, r: 8}", "`peft` is `sft.lora.rank` here: 0 is no LoRA"),
        ("sft.system.precision=bf16", "`system.precision` is `sft.training.mixed_precision_param` here"),
        ("sft.train_on_inputs=true", "`train_on_inputs` is `sft.chat.turns` here: no token of the user's"),
        ("sft.val_set_size=0.05", "`val_set_size` is `sft.data.held_out.dev` here: a share of the rows"),
        ("sft.load_in_4bit=true", "`load_in_4bit`: no base is quantised"),
        ("sft.init_from_model=x", "`init_from_model` is `sft.base` here"),
        ("pretrain.hub_model_id=a/b", "`hub_model_id` is `modules.publish.overrides.repo_id` here: with target: hub"),
        ("pretrain.model.n_layer=3", "did you mean `model.n_layers`?"),
        ("pretrain.params.model_overrides={model.n_embd: 3}", "did you mean `model.dim`?"),
        ("pretrain.trainable=true", "`trainable`: `ignore: primus` in the experiment"),
        ("learning_rate=1e-4", "`learning_rate` is `modules.pretrain.overrides.optimizer.lr` here"),
        ("lora_r=8", "`lora_r` is `modules.sft.overrides.lora.rank` here"),
        ("output_dir=x", "`output_dir` is `workspace` here"),
        ("num_gpus=8", "`num_gpus` is `launcher.nproc_per_node` here"),
        ("push_to_hub=true", "`push_to_hub` is `modules.publish.overrides.target` here: hub"),
        ("sft.dpo_beta=0.1", "`dpo_beta` is `modules.prefer.overrides.prefer.beta` here"),
        ("dpo_beta=0.1", "`dpo_beta` is `modules.prefer.overrides.prefer.beta` here"),
        ("sft.rl=dpo", "`rl` is `modules.prefer.overrides.prefer.loss` here: dpo, elsewhere sigmoid, or ipo"),
        ("stage=dpo", "`stage`: a module's entry says what it trains: `mine: {stage: prefer, base: sft, …}`"),
        ("pretrain.ema_decay=0.99", "`ema_decay` is `pretrain.training.ema` here"),
        ("pretrain.save_best=true", "`save_best` is `modules.publish.overrides.checkpoint.best` here: dev/task/metric"),
        ("pretrain.training.stepz=5", "did you mean `pretrain.training.steps`?"),
    ],
)
def test_the_error_says_where_it_stands_here(write, mistakes, setting: str, expected: str) -> None:
    assert expected in mistakes(write(), setting)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_steps: 5", "`max_steps` is `modules.sft.overrides.training.steps` here"),
        ("repo_ids: x", "modules.sft.repo_ids: unknown key"),
        ("hub_private_repo: true", "`hub_private_repo` is `modules.publish.overrides.private` here"),
        ("training: {steps: 5}", "modules.sft.training: unknown key\n    write `overrides: {training: {steps: 5}}`"),
    ],
)
def test_beside_a_modules_files_too(write, mistakes, line: str, expected: str) -> None:
    spec = f"config: sft.yaml\n    {line}\n"
    message = mistakes(write(experiments__exp=f"modules:\n  pretrain: {{model: tiny.yaml}}\n  sft:\n    {spec}"))
    assert expected in message
    assert "exp.yaml:5" in message


def test_in_the_stages_that_do_not_train(write, mistakes) -> None:
    spec = "modules:\n  evaluate: {config: null, overrides: {n_shot: 2, manual_seed: 3, max_seq_length: 9}}\n"
    message = mistakes(write(experiments__exp=spec))
    assert "`n_shot` is `evaluate.num_fewshot` here" in message
    assert "`manual_seed` is `evaluate.seed` here" in message
    assert "`max_seq_length` is `modules.pretrain.overrides.training.seq_len` here" in message


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("dpo_beta=0.1", "`dpo_beta` is `prefer.prefer.beta` here"),
        ("dpo={beta: 0.1}", "`dpo.beta` is `prefer.prefer.beta` here"),
        ("beta=0.1", "did you mean `prefer.prefer.beta`?"),
        ("label_smoothing=0.1", "did you mean `prefer.prefer.label_smoothing`?"),
        ("prefer.loss_type=[sigmoid]", "`loss_type` is `prefer.prefer.loss` here: dpo, elsewhere sigmoid, or ipo"),
        ("prefer.loss=sigmoid", "did you mean dpo?"),
        ("reference_model=a/b", "`reference_model`: the reference is the stage's base"),
        ("max_prompt_length=64", "`max_prompt_length` is `prefer.training.seq_len` here: prompt and one answer"),
        ("data.chosen=good", "`chosen` is `prefer.data.columns` here: {chosen: good, rejected: bad}"),
        ("data.ranking=true", "`ranking` is `prefer.data.kind` here: pairs"),
        ("stage=dpo", "expected: pretrain, sft, prefer, evaluate, publish\n    did you mean prefer?"),
        ("train_type=dpo", "`train_type`: a module's entry says what it trains"),
    ],
)
def test_in_a_preference_stage(mistakes, setting: str, expected: str) -> None:
    assert expected in mistakes("chain", f"prefer.{setting}")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("dpo: {base: sft}", "`dpo: {stage: prefer, …}` says what the module does"),
        ("two: {stage: IPO, base: sft}", "did you mean prefer?"),
        ("two: {stage: pt, base: pretrain}", "did you mean pretrain?"),
    ],
)
def test_stages_have_other_kinds_here(write, mistakes, entry: str, expected: str) -> None:
    assert expected in mistakes(write(experiments__exp=f"modules:\n  pretrain: {{model: tiny.yaml}}\n  {entry}\n"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "optimizer: muon",
            "optimizer: found 'muon' (text)\n    expected: a mapping\n    write optimizer: {name: Muon}",
        ),
        ("optimizer: adamw_torch_fused", "write optimizer: {name: AdamW}"),
        ("lr_scheduler: cosine", "write lr_scheduler: {decay_type: cosine}"),
        ("activation_checkpoint: full", "write activation_checkpoint: {mode: full}"),
        ("compile: true", "write compile: {enable: true}"),
        ("validation: false", "write validation: {enable: false}"),
    ],
)
def test_a_word_in_place_of_a_section_is_shown_in_it(write, mistakes, setting: str, expected: str) -> None:
    experiment = f"modules:\n  pretrain:\n    model: tiny.yaml\n    overrides: {{{setting}}}\n"
    assert expected in mistakes(write(experiments__exp=experiment))
