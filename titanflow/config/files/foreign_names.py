"""Other trainers' names of keys, and the keys here that mean the same: hints for users who bring a config along.

docs/coming-from.md shows this table; a test checks it against the schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from titanflow.config.keys.experiment import BASE_KEYS
from titanflow.runs.contract import KIND_OF, TRAINED

Home = Literal["training", "evaluate", "publish", "experiment"]


@dataclass(frozen=True)
class Foreign:
    """Names with one meaning in other trainers, separated by spaces, and the ``key`` here; empty if there is none.

    ``home`` says who has the key: a training module (``model.…`` are the model's arguments), evaluate, publish or the
    experiment. ``clause`` says what differs.
    """

    names: str
    key: str
    clause: str = ""
    home: Home = "training"

    @property
    def stage(self) -> str:
        """The stage that has the key; of the training stages pretrain, unless it is about another one alone."""
        if self.home != "training":
            return self.home
        section = self.key.partition(".")[0]
        if section == "prefer":
            return section
        return "sft" if section in (*BASE_KEYS, "lora", "chat") else "pretrain"


FOREIGN = (
    # How long, and how many rows at a time.
    Foreign("max_steps max_iters train_iters num_iterations num_steps total_steps", "training.steps"),
    Foreign(
        "num_train_epochs num_epochs epochs train_epochs",
        "training.steps",
        "in steps: epochs × rows / training.global_batch_size",
    ),
    Foreign(
        "per_device_train_batch_size micro_batch_size device_batch_size batch_size train_batch_size",
        "training.local_batch_size",
        "rows a process takes at a time",
    ),
    Foreign(
        "gradient_accumulation_steps grad_accum_steps accumulate_grad_batches",
        "training.global_batch_size",
        "rows of a step: training.local_batch_size × data-parallel processes × accumulation",
    ),
    Foreign("total_batch_size", "training.global_batch_size", "in rows; a count of tokens is divided by seq_len"),
    Foreign(
        "max_seq_length max_seq_len max_length sequence_len seq_length seq_len cutoff_len block_size context_length",
        "training.seq_len",
    ),
    Foreign("max_position_embeddings", "model.max_seq_len"),
    Foreign("group_by_length", "training.group_by_length", "true or false"),
    Foreign("train_sampling_strategy", "training.group_by_length", "true for group_by_length"),
    # The optimizer and its schedule.
    Foreign("learning_rate max_lr base_lr", "optimizer.lr"),
    Foreign("optim optimizer_type", "optimizer.name", "Adam, AdamW or Muon"),
    Foreign("muon use_muon", "optimizer.name", "Muon"),
    Foreign("muon_matched_adamw_rms muon_scale_mode", "optimizer.muon_adjust_lr_fn", "match_rms_adamw or original"),
    Foreign("muon_num_ns_steps", "optimizer.muon_ns_steps"),
    Foreign("muon_use_nesterov", "optimizer.muon_nesterov"),
    Foreign("muon_beta", "optimizer.muon_momentum"),
    Foreign("adam_beta1", "optimizer.beta1"),
    Foreign("adam_beta2", "optimizer.beta2"),
    Foreign("adam_epsilon adam_eps", "optimizer.eps"),
    Foreign("wd", "optimizer.weight_decay"),
    Foreign("max_grad_norm grad_clip clip_grad gradient_clip_val", "training.max_norm"),
    Foreign("min_lr min_learning_rate lr_end", "lr_scheduler.min_lr_factor", "as a share of optimizer.lr"),
    Foreign("warmup_ratio lr_warmup_fraction", "lr_scheduler.warmup_steps", "in steps: ratio × training.steps"),
    Foreign("warmup_iters lr_warmup_iters num_warmup_steps lr_warmup_steps warmup_steps", "lr_scheduler.warmup_steps"),
    Foreign("lr_scheduler_type lr_decay_style scheduler", "lr_scheduler.decay_type", "linear, sqrt or cosine"),
    Foreign("lr_decay_iters decay_iters", "lr_scheduler.decay_ratio", "as a share of training.steps"),
    # Numbers and kernels.
    Foreign(
        "bf16 torch_dtype mixed_precision precision params_dtype system.precision",
        "training.mixed_precision_param",
        "auto, bfloat16 or float32",
    ),
    Foreign("fp16 float16", "", "float16 isn't trained in: training.mixed_precision_param is bfloat16 or float32"),
    Foreign("fp8", "model.converters", "[quantize.linear.float8]"),
    Foreign(
        "use_flash_attention use_flash_attn use_flash_attention_2 flash_attention flash_attn attn_implementation",
        "model.attn_type",
        "sdpa takes a flash kernel where the device has one; flex or varlen",
    ),
    Foreign("sdp_attention xformers_attention", "model.attn_type", "sdpa, flex or varlen"),
    Foreign(
        "gradient_checkpointing recompute_granularity recompute_activations enable_activation_checkpointing",
        "activation_checkpoint.mode",
        "none, selective or full",
    ),
    Foreign("torch_compile", "compile.enable"),
    Foreign(
        "use_liger_kernel liger_kernel",
        "",
        "no kernels but torch's: compile.enable fuses them, and training.loss_chunks saves the logits",
    ),
    Foreign("num_output_chunks num_chunks", "training.loss_chunks"),
    Foreign("manual_seed random_seed seed_everything", "debug.seed"),
    # Processes.
    Foreign("num_gpus n_gpus gpus num_processes num_gpus_per_node gpus_per_node", "launcher.nproc_per_node"),
    Foreign("num_nodes num_machines", "launcher.nnodes"),
    Foreign("tensor_model_parallel_size tensor_parallel_size tp_size", "parallelism.tensor_parallel_degree"),
    Foreign("pipeline_model_parallel_size pp_size", "parallelism.pipeline_parallel_degree"),
    Foreign("context_parallel_size cp_size sequence_parallel_size", "parallelism.context_parallel_degree"),
    Foreign("expert_model_parallel_size ep_size", "parallelism.expert_parallel_degree"),
    Foreign("ddp", "parallelism.data_parallel_replicate_degree"),
    Foreign("deepspeed fsdp fsdp_config zero_stage", "parallelism.data_parallel_shard_degree", "FSDP; -1 is all"),
    Foreign("dataloader_num_workers num_workers", "training.dataloader.num_workers"),
    # The model.
    Foreign("model_type model_arch architecture", "model.name", "beside model.flavor"),
    Foreign("n_layer num_layers num_hidden_layers", "model.n_layers"),
    Foreign("n_head num_heads num_attention_heads", "model.n_heads"),
    Foreign("num_kv_heads num_query_groups num_key_value_heads n_kv_head", "model.n_kv_heads"),
    Foreign("n_embd hidden_size d_model embed_dim", "model.dim"),
    Foreign(
        "ffn_hidden_size intermediate_size", "model.hidden_dim", "llama3 has ffn_dim_multiplier and multiple_of instead"
    ),
    Foreign("rotary_base rope_base", "model.rope_theta"),
    Foreign("norm_epsilon rms_norm_eps layernorm_epsilon", "model.norm_eps"),
    Foreign("tie_word_embeddings tied_embeddings", "model.enable_weight_tying", "qwen2 and qwen3 have it"),
    Foreign("untie_embeddings_and_output_weights", "model.enable_weight_tying", "the other way round"),
    Foreign("trust_remote_code", "", "nothing that comes with a model is run"),
    # What fine-tuning starts from.
    Foreign(
        "init_from_model model_name_or_path base_model pretrained_model_name_or_path init_from",
        "base",
        "a module, a finished stage's folder, or a model in transformers' format; pretraining begins anew",
    ),
    Foreign("model_revision revision_of_model", "base_revision"),
    Foreign(
        "resume_from_checkpoint auto_resume_from_checkpoints resume",
        "",
        "the same command goes on from the newest checkpoint",
    ),
    Foreign("pretrained_checkpoint finetune_from checkpoint_dir load_checkpoint_path", "checkpoint.initial_load_path"),
    # Data.
    Foreign("dataset_name dataset_id dataset", "data.dataset", "a name on the Hub; files are data.path"),
    Foreign(
        "dataset_path dataset_dir data_path data_files train_file train_data_path train_data datasets",
        "data.path",
        "files or folders; a dataset on the Hub is data.dataset",
    ),
    Foreign("dataset_text_field text_field", "data.text_column"),
    Foreign("streaming", "data.streaming"),
    Foreign("max_samples max_train_samples", "data.limit"),
    Foreign("interleave_probs mix_strategy", "data.mixture"),
    Foreign("eval_dataset eval_dataset_path valid_data_path test_datasets", "validation_data.path"),
    Foreign("val_set_size val_size eval_split", "data.held_out.dev", "a share of the rows, or a number of them"),
    Foreign("tokenizer_name tokenizer_name_or_path tokenizer_path tokenizer_model tokenizer_config", "tokenizer.path"),
    Foreign("sample_packing packing neat_packing pad_to_sequence_len", "data.packing", "best_fit"),
    Foreign("chat_template template conversation_template", "chat.template"),
    Foreign("chat_template_kwargs enable_thinking date_string", "chat.template_args", "{enable_thinking: false}"),
    Foreign(
        "use_loss_mask assistant_only_loss completion_only_loss train_on_responses_only loss_mask",
        "chat.turns",
        "fine-tuning trains the assistant's tokens alone, always; all turns or the last",
    ),
    Foreign(
        "train_on_inputs train_on_input train_on_prompt roles_to_train",
        "chat.turns",
        "no token of the user's is ever trained; all of the assistant's turns, or the last",
    ),
    Foreign("special_tokens new_special_tokens add_tokens", "tokenizer.new_special_tokens"),
    # Adapters.
    Foreign("lora_r lora_rank lora.r peft.r", "lora.rank"),
    Foreign("peft.enabled use_peft use_lora adapter finetuning_type peft peft_config", "lora.rank", "0 is no LoRA"),
    Foreign("lora_alpha", "lora.alpha"),
    Foreign("lora_dropout", "lora.dropout"),
    Foreign("lora_target_modules lora_target lora_attn_modules", "lora.target_modules", "torchtitan's names: [wq, wv]"),
    Foreign("lora_modules_to_save additional_target", "lora.modules_to_save"),
    Foreign("use_rslora", "lora.rslora"),
    Foreign("use_dora", "", "LoRA alone, also with rank-stabilised scaling (lora.rslora)"),
    Foreign(
        "load_in_4bit load_in_8bit quantization_bit bnb_4bit_quant_type use_qlora",
        "",
        "no base is quantised; LoRA (lora.rank) trains beside one in its own precision",
    ),
    # Preferences.
    Foreign(
        "stage train_type",
        "",
        "a module's entry says what it trains: `mine: {stage: prefer, base: sft, …}`; adapters are lora.rank",
    ),
    Foreign("rl rlhf_type pref_loss loss_type dpo_loss_type", "prefer.loss", "dpo, elsewhere sigmoid, or ipo"),
    Foreign("dpo_beta pref_beta rl_beta dpo.beta ref_policy_kl_penalty", "prefer.beta"),
    Foreign("dpo_label_smoothing", "prefer.label_smoothing"),
    Foreign(
        "rpo_alpha pref_ftx simpo_gamma orpo_alpha ld_alpha dpop_lambda f_divergence_type use_weighting",
        "",
        "prefer.loss is dpo or ipo, and has no other terms",
    ),
    Foreign(
        "ref_model reference_model ref_model_name_or_path reference_model_name_or_path "
        "precompute_ref_log_probs reference_free sync_ref_model",
        "",
        "the reference is the stage's base, whose log-probabilities are computed once",
    ),
    Foreign("max_prompt_length max_completion_length", "training.seq_len", "prompt and one answer together"),
    Foreign(
        "chosen rejected field_chosen field_rejected field_prompt chosen_column rejected_column prompt_column",
        "data.columns",
        "{chosen: good, rejected: bad}",
    ),
    Foreign("ranking", "data.kind", "pairs"),
    # Checkpoints, metrics, validation.
    Foreign("save_steps save_interval checkpoint_interval save_every", "checkpoint.interval"),
    Foreign("save_strategy", "checkpoint.interval", "in steps"),
    Foreign("save_total_limit keep_last_n_checkpoints", "checkpoint.keep_latest_k"),
    Foreign("ema_decay use_ema", "training.ema", "unset, no mean is kept"),
    Foreign(
        "load_best_model_at_end metric_for_best_model save_best save_best_model",
        "checkpoint.best",
        "dev/task/metric, which the training's during measures",
        "publish",
    ),
    Foreign("greater_is_better", "", "an evaluation task's metric says so itself"),
    Foreign("eval_steps eval_interval evaluation_interval eval_every run_val_every_n_steps", "validation.freq"),
    Foreign("eval_strategy evaluation_strategy do_eval", "validation.enable"),
    Foreign("eval_iters", "validation.steps"),
    Foreign("per_device_eval_batch_size eval_batch_size", "validation.local_batch_size"),
    Foreign("logging_steps log_interval log_every_n_steps", "metrics.log_freq"),
    Foreign("report_to use_wandb wandb wandb_log", "metrics.enable_wandb", "or metrics.enable_tensorboard"),
    Foreign("tensorboard use_tensorboard tensorboard_dir", "metrics.enable_tensorboard"),
    Foreign("wandb_project wandb_run_name wandb_entity", "", "the environment says it: WANDB_PROJECT, WANDB_ENTITY"),
    Foreign("output_dir out_dir save_dir dump_folder", "workspace", home="experiment"),
    Foreign("run_name", "", "--run NAME"),
    Foreign("experiment_name", "exp_name", home="experiment"),
    # Evaluation and publishing.
    Foreign("eval_tasks lm_eval_tasks", "tasks", home="evaluate"),
    Foreign("n_shot num_shots", "num_fewshot", home="evaluate"),
    Foreign("apply_chat_template", "chat", home="evaluate"),
    Foreign("push_to_hub push_to_hub_model_id", "target", "hub", "publish"),
    Foreign("hub_model_id hub_repo_id hf_repo_id", "repo_id", "with target: hub", "publish"),
    Foreign("hub_private_repo", "private", home="publish"),
    Foreign("hub_token hf_token", "", "the environment has it (HF_TOKEN), or a publication's token_block has it"),
    Foreign("hub_strategy hub_always_push", "", "a stage publishes once, when it has been evaluated"),
    # What only Primus reads.
    Foreign(
        "platform trainable sink_level file_sink_level stderr_sink_level primus_turbo",
        "",
        "`ignore: primus` in the experiment leaves out all that only Primus reads",
    ),
)
"""Names of transformers, TRL, axolotl, LLaMA-Factory, ms-swift, torchtune, nanoGPT, nanochat, Megatron and Primus."""

_MOVED = (
    Foreign("sft.base", "", "a base has no section: `base:` stands beside `config:`, in a module file at its top"),
    Foreign("sft.base_revision", "", "it has no section: `base_revision:` stands beside `base:`"),
    Foreign("sft.allow_longer_context", "training.allow_longer_context"),
    Foreign("sft.change_rope", "model.change_rope"),
)
"""Keys of this project that stood elsewhere."""
KINDS = {"dpo": "prefer", "ipo": "prefer", "rlhf": "prefer", "pt": "pretrain", "cpt": "pretrain"}
"""Their names of stages, and the kind of stage that does the same here."""
VALUES = {"sigmoid": "dpo", "muon": "Muon", "adamw": "AdamW", "adamw_torch": "AdamW", "adamw_torch_fused": "AdamW"}
"""Their words for a choice, and the word here."""
_BY_NAME = {name: entry for entry in (*FOREIGN, *_MOVED) for name in entry.names.split()}


def foreign_hint(keys: Iterable[str], known: Iterable[str], prefix: str) -> str:
    """A hint with the key to write for the first of another trainer's dotted ``keys``; empty where none is known.

    ``known`` are the dotted keys that their place has; ``prefix`` is its name: empty, ``modules.sft.`` or ``sft.``. A
    module that is named by its kind may have another name: :func:`titanflow.config.stages.by_own_names`.
    """
    for key in keys:
        for name in _names(key):
            if (entry := _BY_NAME.get(name)) is None:
                continue
            if not entry.key:
                return f"`{name}`: {entry.clause}"
            clause = f": {entry.clause}" if entry.clause else ""
            return f"`{name}` is `{_place(entry, key, set(known), prefix)}` here{clause}"
    return ""


def foreign_key(key: str) -> str:
    """The key here for another trainer's key; empty where it isn't known, or has no counterpart."""
    entry = next((_BY_NAME[name] for name in _names(key) if name in _BY_NAME), None)
    return entry.key if entry else ""


def _names(key: str) -> Iterator[str]:
    """A key's ends, the longest first: ``peft.enabled``, ``enabled``."""
    parts = key.lower().replace("-", "_").split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _place(entry: Foreign, key: str, known: set[str], prefix: str) -> str:
    """The key to write in place of ``key``: one of the same section, if there is such a key."""
    module = prefix.removeprefix("modules.").rstrip(".")
    if entry.stage == "prefer" and KIND_OF.get(module, "prefer") != "prefer":
        return f"modules.prefer.overrides.{entry.key}"
    section, last = key.rpartition(".")[0], entry.key.rpartition(".")[2]
    sibling = f"{section}.{last}" if section else last
    for own in (sibling, entry.key):
        if own in known:
            return f"{prefix}{own}"
    if entry.home == "experiment":
        return entry.key
    trains = KIND_OF.get(module) in TRAINED or "training.steps" in known
    is_home = bool(module) and entry.home == "training" and trains
    if is_home and not prefix.startswith("modules."):
        return f"{prefix}{entry.key}"
    place = f"modules.{module if is_home else entry.stage}"
    return f"{place}.{entry.key}" if entry.key in BASE_KEYS else f"{place}.overrides.{entry.key}"
