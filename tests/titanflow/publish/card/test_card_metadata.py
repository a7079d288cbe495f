"""Licence and languages of a card, as a Hub would check them once the model is trained."""

from pathlib import Path
from typing import Any

import pytest
from finished_run import FinishedRun
from huggingface_hub import ModelCard

from titanflow.common.errors import ConfigError
from titanflow.publish.card.metadata import LICENSES
from titanflow.publish.publish import publish
from titanflow.publish.settings import read_settings


@pytest.mark.parametrize(
    "config",
    [
        {"license": "mit", "language": ["en", "deu", "code", "multilingual"]},
        {"license": "llama3.1"},
        {"license": "openrail++"},
        {"license": "other", "license_name": "my-license-1.0", "license_link": "https://example.com/license"},
        {"license": "other", "license_name": "mine"},
    ],
)
def test_what_a_hub_takes(finished: FinishedRun, config: dict[str, Any]) -> None:
    assert read_settings(finished.to_publish(**config)).license == config["license"]


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("Apache 2.0", "apache-2.0"),
        ("apache-2", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("MIT License", "mit"),
        ("GPLv3", "gpl-3.0"),
        ("GPL-3.0-only", "gpl-3.0"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("cc-by-4", "cc-by-4.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("llama-3.1", "llama3.1"),
    ],
)
def test_the_licence_that_is_likely_meant(finished: FinishedRun, found: str, meant: str) -> None:
    assert found not in LICENSES
    assert f"did you mean {meant}?" in refusal(finished, license=found)


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("english", "en"),
        ("German", "de"),
        ("en-US", "en"),
        ("EN", "en"),
        ("zh_CN", "zh"),
        ("portugese", "pt"),
        ("jp", "ja"),
        ("cn", "zh"),
        ("gr", "el"),
        ("en-us", "en"),
    ],
)
def test_the_language_that_is_likely_meant(finished: FinishedRun, found: str, meant: str) -> None:
    message = refusal(finished, language=["fr", found])
    assert f"publish.yaml:3: publish.language: found {found!r}" in message
    assert f"did you mean {meant}?" in message


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"license": "proprietary, ask us"}, "for a licence of your own: license: other, license_name: …"),
        ({"license": ""}, "found '', which the Hub doesn't list"),
        ({"license": "other"}, "found 'other', and no license_name"),
        ({"license": "other", "license_name": "My Licence"}, "found 'My Licence'"),
        ({"license": "other", "license_name": "mine", "license_link": "LICENSE"}, "the address of the licence's text"),
        ({"license": "other", "license_name": "mine", "license_link": "https://a> **b**"}, "found 'https://a> **b**'"),
        ({"license": "mit", "license_name": "mine"}, "found 'mine', which means nothing with license: mit"),
        ({"language": ["python"]}, "of program text: code"),
        ({"language": ["en", ""]}, "found ''"),
        ({"language": ["xx"]}, "a code of ISO 639-1"),
        ({"language": ["qaa"]}, "found 'qaa'"),
        ({"license": "other", "license_name": "mine", "license_link": "https:///mine"}, "found 'https:///mine'"),
        ({"language": [False]}, "in a list yes, no, on and off, too) needs quotes"),
    ],
)
def test_what_a_hub_refuses(finished: FinishedRun, config: dict[str, Any], says: str) -> None:
    assert says in refusal(finished, **config)


def refusal(finished: FinishedRun, **config: Any) -> str:
    run = finished.to_publish(**config)
    run.origins |= dict.fromkeys(config, "publish.yaml:3")
    with pytest.raises(ConfigError) as caught:
        read_settings(run)
    assert "publish.yaml:3: publish.l" in str(caught.value)
    return str(caught.value)


def test_a_licence_of_ones_own_is_named_and_linked(finished: FinishedRun) -> None:
    link = "https://example.com/license"
    publish(finished.to_publish(license="other", license_name="my-license", license_link=link))
    text = (finished.root / "publish" / "model" / "README.md").read_text()
    assert text.endswith(f"## Licence\n\nmy-license: <{link}>\n")
    data = ModelCard(text).data
    assert (data.license, data.license_name, data.license_link) == ("other", "my-license", link)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"tags": ["fine", "two\nlines"]}, r"(?s)publish.tags: found 'two\\nlines'"),
        ({"tags": [" "]}, "publish.tags: found ' '"),
        ({"tags": ["a\u2028b"]}, "publish.tags: found"),
        ({"tags": ["a\x00b"]}, "publish.tags: found"),
        ({"tags": [" a"]}, "publish.tags: found ' a'"),
        ({"tags": ["\u200b"]}, "publish.tags: found"),
        ({"tags": ["\u202ea"]}, "publish.tags: found"),
        ({"commit_message": "a title\n\ud800"}, "publish.commit_message: found"),
        (
            {"commit_message": "\nsecond line"},
            "(?s)publish.commit_message: found .*expected: a title on the first line",
        ),
    ],
)
def test_text_that_is_no_line(finished: FinishedRun, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_settings(finished.to_publish(**config))


def test_text_that_yaml_would_read_otherwise_stays_text(finished: FinishedRun) -> None:
    tags = ["---", "no", "1e5", "a: b", "# not a comment", "[a", "it's", "\u00e4 \u2260 \u4e2d"]
    result = publish(finished.to_publish(tags=tags, commit_message="a title\n\nand more"))
    assert ModelCard.load(f"{result.location}/README.md").data.tags == ["titanflow", "torchtitan", *tags]


@pytest.mark.parametrize(
    ("config", "key", "what"),
    [
        ({"commit_message": "with hf_averysecrettoken"}, "commit_message", "a token"),
        ({"tags": ["fine", "hf_averysecrettoken"], "license": "none"}, "tags", "a token"),
        ({"target": "hub", "repo_id": "a/b", "tag": "hf_averysecrettoken "}, "tag", "a token"),
        (
            {"license": "other", "license_name": "a", "license_link": "https://me:secret@a.example"},
            "license_link",
            "a token",
        ),
        ({"example": f"What is in {Path.home()}/notes?"}, "example", "the path of your home folder"),
    ],
)
def test_a_secret_is_refused_before_anything_is_trained(
    finished: FinishedRun, config: dict[str, Any], key: str, what: str
) -> None:
    """The card was looked through when the model was trained, and the commit's message was sent as it is."""
    with pytest.raises(ConfigError) as caught:
        read_settings(finished.to_publish(**config))
    assert str(caught.value).startswith(f"publish.{key}: would publish {what}")
    assert "secret" not in str(caught.value)


def test_a_folder_of_this_machine_is_no_secret(finished: FinishedRun) -> None:
    assert read_settings(finished.to_publish(folder=f"{Path.home()}/models/mine")).folder


def test_a_run_s_name_is_no_secret(finished: FinishedRun) -> None:
    run = finished.to_publish()
    run.run = "hf_averysecrettoken"
    with pytest.raises(ConfigError, match="--run: the card would publish a token"):
        read_settings(run)
