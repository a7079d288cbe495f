import pytest
import yaml

from deployments.nightly import DEPLOYMENTS, Nightly, prefect_file
from titanflow.common.errors import ConfigError


def nightly_of(path):
    deployments = yaml.safe_load(path.read_text())["deployments"]
    return {one["name"]: one for one in deployments}["nightly"]


def test_without_a_word_it_is_as_prefect_yaml_has_it(tmp_path):
    path = prefect_file(Nightly(), tmp_path)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(DEPLOYMENTS.read_text())


def test_experiment_time_and_zone_are_said_without_editing_anything(tmp_path):
    path = prefect_file(Nightly("stdlib", "30 0 * * 1-5", "Europe/Berlin"), tmp_path)
    nightly = nightly_of(path)
    assert nightly["schedules"] == [{"cron": "30 0 * * 1-5", "timezone": "Europe/Berlin", "active": True}]
    assert nightly["parameters"] == {"run": "{date}", "night": True, "experiment": "stdlib"}


@pytest.mark.parametrize(
    ("nightly", "says"),
    [
        (Nightly(cron="61 * * * *"), "--nightly-cron: found '61 [*] [*] [*] [*]'"),
        (Nightly(timezone="Mars/Olympus"), "--timezone: found 'Mars/Olympus'"),
        (Nightly("stdlib_nightlyy"), "no experiment 'stdlib_nightlyy'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(tmp_path, nightly, says):
    with pytest.raises(ConfigError, match=says):
        prefect_file(nightly, tmp_path)
    assert list(tmp_path.iterdir()) == []
