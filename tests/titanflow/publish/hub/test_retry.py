import errno
import json
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import FileMetadataError, LocalEntryNotFoundError, OfflineModeIsEnabled

from titanflow.common.errors import HubError, HubUnreachable
from titanflow.publish.hub.retry import LONGEST_QUOTE, TRANSPORT_ERROR, Caller, Retry, retry_after


def answer(status: int, message: str = "", **headers: str) -> Exception:
    error = TRANSPORT_ERROR("an answer")
    error.server_message = message  # type: ignore[attr-defined]
    error.response = SimpleNamespace(status_code=status, headers=headers)  # type: ignore[attr-defined]
    return error


def caller(waits: list[float], **retry: Any) -> Caller:
    return Caller("owner/name", "hf_secrettoken", Retry(sleep=waits.append, **retry))


def failing(*errors: Exception) -> Any:
    left = list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return request


def test_waits_double_up_to_the_longest() -> None:
    waits: list[float] = []
    busy = [answer(503) for _ in range(5)]
    assert caller(waits, longest_wait=6.0)("try", failing(*busy)) == "done"
    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "0"}, 0.0),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=12;t=55'}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(answer(429, **headers)) == seconds


@pytest.mark.parametrize(
    "error",
    [
        TRANSPORT_ERROR("reset"),
        ConnectionResetError(),
        TimeoutError(),
        json.JSONDecodeError("no JSON", "", 0),
        FileMetadataError("no X-Repo-Commit"),
        OSError("Consistency check failed"),
    ],
)
def test_an_answer_that_never_came_is_worth_another_try(error: Exception) -> None:
    waits: list[float] = []
    assert caller(waits)("try", failing(error)) == "done"
    assert waits == [1.0]


def test_an_upload_s_own_error_is_found_behind_the_client_s() -> None:
    wrapped = RuntimeError("Error while uploading")
    wrapped.__cause__ = answer(403, "read only")
    with pytest.raises(HubError, match=r"answered 403 \(read only\)"):
        caller([])("upload", failing(wrapped))


def test_a_download_s_own_error_is_found_behind_the_client_s() -> None:
    wrapped = LocalEntryNotFoundError("An error happened while trying to locate the file")
    wrapped.__cause__ = answer(503)
    waits: list[float] = []
    assert caller(waits)("download", failing(wrapped)) == "done"
    assert waits == [1.0]


def test_a_mistake_of_this_program_is_not_the_hub_s() -> None:
    for mistake in (KeyError("x"), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(type(mistake)):
            caller([])("try", failing(mistake))


def test_a_hub_that_stays_silent_may_be_asked_by_another_attempt_of_the_stage() -> None:
    for error, kind in (
        (ConnectionResetError(), HubUnreachable),
        (answer(503), HubUnreachable),
        (answer(403), HubError),
    ):
        with pytest.raises(HubError) as caught:
            Caller("a/b", "", Retry(attempts=1))("try", failing(error))
        assert type(caught.value) is kind


def test_offline_mode_is_named() -> None:
    waits: list[float] = []
    with pytest.raises(HubError, match="Unset HF_HUB_OFFLINE"):
        caller(waits)("try", failing(OfflineModeIsEnabled("offline")))
    assert waits == []


def test_no_token_and_no_page_of_html_in_a_message() -> None:
    message = "hf_secrettoken is not allowed " + "<p>\n" * 500
    with pytest.raises(HubError) as caught:
        caller([])("try", failing(answer(403, message)))
    assert "secrettoken" not in str(caught.value)
    assert "[redacted] is not allowed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < LONGEST_QUOTE + 300
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_status_that_is_final_elsewhere_may_be_tried_again() -> None:
    assert caller([])("commit", failing(answer(412)), also=frozenset({412})) == "done"
    with pytest.raises(HubError, match="answered 412"):
        caller([])("read", failing(answer(412)))
