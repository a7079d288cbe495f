from titanflow.plan.inputs import without_effect_left_out


def test_adapters_count_where_there_are_any() -> None:
    config = {"optimizer": {"lr": 1.0}, "lora": {"rank": 0, "alpha": 16.0}}
    assert without_effect_left_out(config) == {"optimizer": {"lr": 1.0}, "lora": {"rank": 0}}
    config["lora"]["rank"] = 4
    assert without_effect_left_out(config) == config
