from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from prefect.exceptions import ObjectNotFound

from deployments import deployed
from titanflow.common.errors import ConfigError


@pytest.fixture
def server(monkeypatch):
    """Answers as a server whose deployment has the ``steps``; None stands for a server without deployments."""

    class Client:
        steps = None

        def read_deployment_by_name(self, name):
            if self.steps is None:
                raise ObjectNotFound(Exception(name))
            return SimpleNamespace(pull_steps=self.steps)

    client = Client()
    monkeypatch.setattr(deployed, "get_client", lambda sync_client: nullcontext(client))
    return client


def test_a_further_worker_starts_where_runs_start(server, tmp_path):
    server.steps = [{deployed.IN_FOLDER: {"directory": str(tmp_path)}}]
    deployed.check_deployed("http://head:4200/api", tmp_path)


def test_another_folder_is_refused_with_the_right_one(server, tmp_path):
    server.steps = [{deployed.IN_FOLDER: {"directory": "/shared/titanflow"}}]
    with pytest.raises(ConfigError, match=f"--pool: started in {tmp_path}") as error:
        deployed.check_deployed("http://head:4200/api", tmp_path)
    assert "/shared/titanflow, where runs start" in str(error.value)


def test_a_server_without_deployments_is_named(server, tmp_path):
    with pytest.raises(ConfigError, match="http://head:4200/api has no deployment pretrain-sft/on-demand"):
        deployed.check_deployed("http://head:4200/api", tmp_path)
