import pytest
import yaml

from deployments.nightly import DEPLOYMENTS, Nights, check_nights, deployments, with_nights
from titanflow.common.errors import ConfigError

EXPERIMENT = "extends: [stdlib_nightly.yaml]\nexp_name: {}\n"


def deployed(asked):
    """The deployments, by name."""
    return {one["name"]: one for one in with_nights(deployments(), check_nights(asked), asked)["deployments"]}


@pytest.fixture
def configs(tmp_path):
    """A folder of configs with two experiments, and a third under the name of the first."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    for file, name in (("a", "prose"), ("b", "code"), ("c", "prose")):
        (folder / f"{file}.yaml").write_text(EXPERIMENT.format(name), encoding="utf-8")
    return str(tmp_path)


def test_without_a_word_they_are_as_prefect_yaml_has_them():
    written = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    assert deployed(Nights()) == {one["name"]: one for one in written}


def test_experiment_time_and_zone_are_said_without_editing_anything():
    nightly = deployed(Nights(("stdlib",), "30 0 * * 1-5", "Europe/Berlin"))["nightly-stdlib"]
    assert nightly["schedules"] == [{"cron": "30 0 * * 1-5", "timezone": "Europe/Berlin", "active": True}]
    assert nightly["parameters"] == {"run": "{date}", "night": True, "experiment": "stdlib"}


def test_each_experiment_has_a_night_of_its_own(configs):
    found = deployed(Nights(("a", "b"), configs=configs))
    assert list(found) == ["on-demand", "nightly-prose", "nightly-code"]
    assert [found[name]["parameters"]["experiment"] for name in ("nightly-prose", "nightly-code")] == ["a", "b"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"cron": "61 * * * *"}, "--nightly-cron: found '61 [*] [*] [*] [*]'"),
        ({"cron": "* * * * * *"}, "--nightly-cron: found '[*] [*] [*] [*] [*] [*]'"),
        (
            {"cron": "0 0 30 2 *"},
            "--nightly-cron: found '0 0 30 2 [*]'\n    expected: minute hour day month weekday, as",
        ),
        ({"timezone": "Mars/Olympus"}, "--timezone: found 'Mars/Olympus'"),
        ({"experiments": ("stdlib_nightlyy",)}, "no experiment 'stdlib_nightlyy'"),
        ({"experiments": ("a", "b", "c")}, "--experiment: a and c have one name\n.*exp_name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(configs, asked, says):
    with pytest.raises(ConfigError, match=says):
        check_nights(Nights(configs=configs, **asked))


def test_the_mistakes_of_all_experiments_are_shown_together(configs, tmp_path):
    for name in ("d", "e"):
        (tmp_path / "experiments" / f"{name}.yaml").write_text("extends: [stdlib.yaml]\nnightly: {kept: 3}\n")
    with pytest.raises(ConfigError, match=r"^3 problems:\n") as refused:
        check_nights(Nights(("a", "d", "e", "c"), configs=configs))
    said = str(refused.value)
    assert all(f"experiments/{name}.yaml:2: nightly.kept" in said for name in ("d", "e"))
    assert "a and c have one name" in said


def test_an_experiment_that_is_named_twice_has_one_night(configs):
    assert check_nights(Nights(("a", "a"), configs=configs)) == {"nightly-prose": "a"}
