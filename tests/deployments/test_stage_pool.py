import pytest
from typer.testing import CliRunner

from deployments.serve import serve_pods
from flows.server.server import free_port
from titanflow.cli.main import app
from titanflow.common.errors import ConfigError


def test_the_pool_of_whole_runs_has_no_pods(tmp_path):
    with pytest.raises(ConfigError, match="--pool: found 'titanflow', the pool of whole runs"):
        serve_pods(free_port(), "titanflow", 1, ["image=titanflow"], tmp_path)


@pytest.mark.parametrize("options", [[], ["--pool", "gpu", "--one-worker-per-gpu"]])
def test_pods_are_asked_for_in_a_pool_of_stages(options):
    done = CliRunner().invoke(app, ["serve", "--job", "image=titanflow", *options])
    assert done.exit_code == 2
    assert "error: --job: stages are pods" in done.stderr
    assert "expected: --pool, and no --one-worker-per-gpu" in done.stderr
