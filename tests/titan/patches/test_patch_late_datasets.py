"""What a training of prepared rows needn't import, and that a training on text has it."""

from test_patches import in_a_new_process


def test_datasets_is_imported_for_a_dataset_of_text_alone():
    assert in_a_new_process(
        """
        import sys
        from titan.patches import apply_patches

        apply_patches(["late_compile", "late_datasets", "cpu_device"])
        apply_patches(["late_datasets"])
        import titan.train.trainer, titan.train.train_spec
        print(*(name in sys.modules for name in ("datasets", "datasets.distributed", "pandas")))

        from torchtitan.hf_datasets import DatasetConfig, text_datasets

        class Letters:
            def encode(self, text, **marks):
                return list(map(ord, text))

        text_datasets.DATASETS["mine"] = DatasetConfig(
            path="",
            loader=lambda path: text_datasets.Dataset.from_dict({"text": ["abc", "de"]}),
            sample_processor=lambda row: row["text"],
        )
        rows = text_datasets.HuggingFaceTextDataset("mine", None, Letters(), seq_len=4)
        row, labels = next(iter(rows))
        print(*row["input"].tolist(), *labels.tolist())
        # Where it stands in the text is asked of what `Dataset` is.
        print(rows.state_dict()["sample_idx"])

        import datasets
        import datasets.distributed
        assert text_datasets.Dataset is datasets.Dataset
        assert text_datasets.load_dataset is datasets.load_dataset
        assert text_datasets.split_dataset_by_node is datasets.distributed.split_dataset_by_node
        """
    ) == ["False", "False", "False", *map(str, [97, 98, 99, 100, 98, 99, 100, 101]), "2"]


def test_what_has_imported_it_already_is_left_alone():
    assert in_a_new_process(
        """
        import datasets
        from titan.patches import late_datasets
        print(late_datasets.needed())
        """
    ) == ["False"]
