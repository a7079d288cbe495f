import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from huggingface_hub import HfApi
from local_hub import LocalHub, Repo

from titanflow.common import hub_endpoint as endpoint
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, HubError
from titanflow.common.hub_endpoint import HUB, hub_client, hub_endpoint, hub_token, use_plain_transfer
from titanflow.publish.hub.retry import TRANSPORT_ERROR, is_transient


def test_the_endpoint_is_the_hub_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub_endpoint() == HUB
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080/")
    assert hub_endpoint() == "http://127.0.0.1:8080"


@pytest.mark.parametrize("url", ["https://me:s3cret@hub.example", "https://s3cret@hub.example"])
def test_credentials_in_the_endpoint_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(ConfigError, match="holds a name or password") as caught:
        hub_endpoint()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["hub.example", "ftp://hub.example", "https://"])
def test_what_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(ConfigError, match="is no URL"):
        hub_endpoint()


def test_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="set HF_TOKEN"):
        hub_token()


def test_redact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "opaque-token")
    text = "opaque-token, hf_abcdefgh1234, other, https://me:pw@host/x"
    assert redact(text, "other") == "opaque-token, [redacted], [redacted], https://[redacted]host/x"
    assert redact(text) == "[redacted], [redacted], other, https://[redacted]host/x"


PROBE = """
from titanflow.common.hub_endpoint import use_plain_transfer
{first}
use_plain_transfer({url!r})
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_XET)
"""


@pytest.mark.parametrize(
    ("url", "first", "setting", "disabled"),
    [
        (HUB, "", None, "False"),
        ("http://127.0.0.1:1", "", None, "True"),
        ("http://127.0.0.1:1", "import huggingface_hub.constants", None, "True"),
        ("http://127.0.0.1:1", "", "0", "False"),
    ],
)
def test_xet_is_off_for_another_hub_only(url: str, first: str, setting: str | None, disabled: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_XET"}
    if setting is not None:
        environment["HF_HUB_DISABLE_XET"] = setting
    code = PROBE.format(url=url, first=first)
    probe = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert probe.stdout.strip() == disabled


def test_the_real_hub_keeps_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    use_plain_transfer(HUB)
    assert "HF_HUB_DISABLE_XET" not in os.environ


def test_a_hub_that_never_answers_is_given_up(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["local/model"] = Repo(private=True)
    monkeypatch.setattr(endpoint, "PATIENCE", 0.1)
    for _ in range(2):  # a second client gives up no less
        client = hub_client(hub.url, hub.token)
        for pattern, request in (("GET /api/models", client.model_info), ("POST .*/branch/", branch(client))):
            hub.slow(pattern)
            with pytest.raises(TRANSPORT_ERROR) as caught:
                request("local/model")
            assert is_transient(caught.value)


def branch(client: HfApi) -> Callable[[str], None]:
    return lambda name: client.create_branch(name, branch="next")


def test_no_url_of_an_upload_is_logged(hub: LocalHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    hub.repos["local/model"] = Repo(private=True)
    hub.repos["local/model"].commit("main", "first", {})
    hub_client(hub.url, hub.token).model_info("local/model")
    assert not [line for line in caplog.messages if hub.url in line]


@pytest.mark.parametrize("token", ["hf_a b", "hf_é", "hf_a\u200b", "“hf_abc”"])
def test_a_token_that_can_be_none_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """A copied quotation mark was "'ascii' codec can't encode …: the Hub found a mistake in what was sent"."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(HubError, match="holds a character that no token has") as caught:
        hub_token()
    assert token not in str(caught.value)
