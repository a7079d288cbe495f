"""Texts of the keys of lm-eval's tasks, of which its own source says little."""

from __future__ import annotations

TASK = {
    "task": "The name, by which `evaluate.tasks` asks for it.",
    "task_alias": "The name that tables show.",
    "tag": "Names by which several tasks are asked for at once.",
    "group": "The name of a group; the file then lists its tasks under `task`.",
    "task_list": "Tasks of one file, each with what differs.",
    "custom_dataset": "A function that makes the items.",
    "dataset_path": "A dataset on the Hub; or `json`, `csv`, `parquet` or `text`, with `dataset_kwargs.data_files`.",
    "dataset_name": "The dataset's configuration, where it has several.",
    "dataset_kwargs": 'What `datasets.load_dataset` gets besides: {data_files: {test: "${data}/items.jsonl"}}.',
    "training_split": "The split with examples for the prompt, where there is one.",
    "validation_split": "The split that is asked where there is no `test_split`.",
    "test_split": "The split whose items are asked.",
    "fewshot_split": "The split that examples come from; unset, the training's, then the validation's.",
    "process_docs": "A function that changes the items before they are asked.",
    "doc_to_text": "The question.",
    "doc_to_target": "The right answer; of choices its number, or the answer itself.",
    "doc_to_choice": "The choices, of which the likeliest is the model's answer.",
    "doc_to_image": "Refused here: the models read text alone.",
    "doc_to_audio": "Refused here: the models read text alone.",
    "unsafe_code": "Refused here: nothing runs the code that a model writes.",
    "process_results": "A function that makes an item's scores of the answers.",
    "use_prompt": "A prompt of promptsource, by its name.",
    "description": "Text before all examples and the question.",
    "target_delimiter": "What stands between the question and the answer.",
    "fewshot_delimiter": "What stands between two examples.",
    "fewshot_config": "How examples are chosen and written: the keys below.",
    "num_fewshot": "Examples in the prompt; `evaluate.num_fewshot` goes before it.",
    "metric_list": "The metrics, each with `metric`, `aggregation` and `higher_is_better`.",
    "output_type": "What is asked of the model: `multiple_choice`, `generate_until`, `loglikelihood` or "
    "`loglikelihood_rolling`.",
    "generation_kwargs": 'How answers are generated: {until: ["\\n"], max_gen_toks: 32, do_sample: false}.',
    "repeats": "How often each item is asked.",
    "filter_list": "What is done with answers before they are scored, such as a search for a number.",
    "should_decontaminate": "lm-eval's search for items in training data; this project's is `evaluate.contamination`.",
    "doc_to_decontamination_query": "What that search looks for.",
    "gen_prefix": "Text with which each answer begins.",
    "metadata": "Anything; `version` is recorded, and `chat: true` asks through the chat template.",
}
"""The keys of a task's file."""
FEWSHOT = {
    "sampler": "How examples are chosen: `default` draws them, `first_n` takes the first ones.",
    "split": "The split that they come from, in place of `fewshot_split`.",
    "process_docs": "A function that changes them.",
    "fewshot_indices": "Refused here: lm-eval ignores it.",
    "samples": "The examples themselves, in place of a split.",
    "doc_to_text": "The question of an example.",
    "doc_to_choice": "The choices of an example.",
    "doc_to_target": "The answer of an example.",
    "gen_prefix": "Text with which an example's answer begins.",
    "fewshot_delimiter": "What stands between two examples.",
    "target_delimiter": "What stands between an example's question and its answer.",
}
"""The keys of ``fewshot_config``."""
