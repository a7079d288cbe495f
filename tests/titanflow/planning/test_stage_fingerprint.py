from titanflow.planning.inputs import result_relevant


def test_adapters_count_where_there_are_any() -> None:
    config = {"optimizer": {"lr": 1.0}, "lora": {"rank": 0, "alpha": 16.0}}
    assert result_relevant(config) == {"optimizer": {"lr": 1.0}, "lora": {"rank": 0}}
    config["lora"]["rank"] = 4
    assert result_relevant(config) == config
