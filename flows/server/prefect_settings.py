"""Prefect's settings, which Prefect reads as it is imported: one of no use is refused by name, not by a traceback.

They stand in the environment, in Prefect's profiles, and in ``prefect.toml`` and ``pyproject.toml`` of the current
folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows.server.proxies import check_proxies
from titanflow.common.credentials import is_secret, redact
from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded
from titanflow.files.caches import WRITTEN
from titanflow.files.toml_source import read_toml
from titanflow.files.yaml_source import Leaf, Tree

URL = "PREFECT_API_URL"
HERE = ("prefect.toml", "pyproject.toml")
"""The files of the current folder in which Prefect looks for settings, whosever they are."""
ELSEWHERE = "it stands in prefect.toml, pyproject.toml or .env of this folder"
FIELD = re.compile(r'field "(\w+)"')


def check_prefect_settings() -> None:
    """Checks that Prefect can be imported with the settings that there are; to be called before it is.

    Raises:
        ConfigError: a setting has a wrong value, a file of settings can't be read, the server's address is none, or a
            proxy is of no use.
    """
    check_proxies()
    for name in HERE:
        if Path(name).is_file():
            read_toml(Path(name))
    profile = _profile()
    # Of some addresses Prefect says what is wrong, but not whose.
    _check_address(os.environ.get(URL) or (leaf.value if isinstance(leaf := profile.get(URL), Leaf) else ""), profile)
    try:
        # What Prefect prints before it raises is no more than the error.
        with contextlib.redirect_stderr(io.StringIO()):
            from prefect.settings import PREFECT_API_URL

            url = PREFECT_API_URL.value()
    except ValidationError as error:
        raise ConfigError(list(_refused(error, profile))) from None
    except ValueError as error:
        field = FIELD.search(str(error))
        named = _named([f"_{field[1].upper()}"], profile) if field else ""
        raise ConfigError(Problem(f"Prefect refuses its settings: {error}", named)) from None
    _check_address(url, profile)


def _check_address(url: str | None, profile: Tree) -> None:
    if url and not _is_address(url):
        hint = "or unset it to have a server started"
        expected = "an address, as http://127.0.0.1:4200/api"
        raise ConfigError(Problem(f"found {redact(url)!r}", URL, _origin(URL, profile), expected, hint))


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        # An impossible port is refused as it is read.
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def _profile() -> Tree:
    """The settings of the active profile; empty if there is none of the user's own."""
    home = expanded(os.environ.get("PREFECT_HOME") or WRITTEN["PREFECT_HOME"])
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    if not path.is_file():
        return {}
    content = read_toml(path)
    profiles = content.get("profiles", {})
    for key, table in {"profiles": profiles, **(profiles if isinstance(profiles, dict) else {})}.items():
        if isinstance(table, Leaf):
            expected = "a table of settings for each profile: [profiles.<name>]"
            raise ConfigError(Problem(f"found {table.value!r}", key, table.origin, expected))
    active = content.get("active")
    name = os.environ.get("PREFECT_PROFILE") or (active.value if isinstance(active, Leaf) else None)
    return dict(profiles.get(name, {}))


def _refused(error: ValidationError, profile: Tree) -> Iterator[Problem]:
    model = next((model for model in _models(BaseModel) if model.__name__ == error.title), BaseModel)
    for one in error.errors():
        # It only says that another field was refused.
        if one["type"] == "default_factory_not_called":
            continue
        names = _names(model, str(one["loc"][0])) if one["loc"] else []
        name = _named(names, profile)
        found = "" if is_secret(name) or not names else f"found {redact(repr(one['input']))}: "
        message = one["msg"].partition("\n")[0]
        yield Problem(f"{found}{message[:1].lower()}{message[1:]}", name, *_place(name, profile))


def _models(above: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in above.__subclasses__():
        yield model
        yield from _models(model)


def _names(model: type[BaseModel], field: str) -> list[str]:
    """The variables that set a field of Prefect's settings, its own name first."""
    own = f"{model.model_config.get('env_prefix', '')}{field}".upper()
    alias = model.model_fields.get(field, FieldInfo()).validation_alias
    others = alias.choices if isinstance(alias, AliasChoices) else []
    return [own, *(other.upper() for other in others if isinstance(other, str))]


def _named(names: list[str], profile: Tree) -> str:
    """The variable that is set, of those that end so; else the first name."""
    given = [*os.environ, *profile]
    ends = tuple(names)
    found = (name for name in given if name.upper().startswith("PREFECT_") and name.upper().endswith(ends))
    return next(found, names[0].strip("_") if names else "")


def _place(name: str, profile: Tree) -> tuple[str, str, str]:
    """A setting's origin, what is expected there (nothing more than the message says), and where else to look."""
    origin = _origin(name, profile)
    return origin, "", "" if origin or not name or name in os.environ else ELSEWHERE


def _origin(name: str, profile: Tree) -> str:
    """The line of the profile that sets a variable; empty if the environment does, which counts for more."""
    leaf = profile.get(name)
    return leaf.origin if isinstance(leaf, Leaf) and name not in os.environ else ""
