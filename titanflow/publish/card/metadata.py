"""The licences, languages and tags that a Hub accepts in a card's front matter, checked before anything is trained.

A Hub verifies ``license`` when the card is committed, and shows an error on the model's page for an unknown language.
huggingface_hub asks a Hub about both, but a plan must do without one.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from urllib.parse import urlsplit

from titanflow.common.errors import Problem
from titanflow.config.keys.after_training import Publish
from titanflow.publish.card.languages import EXPECTED, is_language, language_hint
from titanflow.publish.card.markdown import BIDI
from titanflow.run.contract import StageRun

OTHER = "other"
"""The identifier of a licence that the Hub doesn't list and that has a name of its own."""
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENSES = frozenset(_LICENSES.split())
"""The Hub's identifiers, as https://huggingface.co/docs/hub/repositories-licenses had them on 22 August 2026."""
LICENSE_EXPECTED = (
    "an identifier of https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0, mit or other"
)
LICENSE_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
LICENSE_LINK = re.compile(r"https?://[^\s<>\"`]+")


def card_problems(settings: Publish, run: StageRun) -> list[Problem]:
    return [*_license_problems(settings, run), *_language_problems(settings, run), *_text_problems(settings, run)]


def _license_problems(settings: Publish, run: StageRun) -> list[Problem]:
    license_, name, link = settings.license, settings.license_name, settings.license_link
    if license_ not in LICENSES:
        found = f"found {license_!r}, which the Hub doesn't list"
        return [_problem(run, "license", found, LICENSE_EXPECTED, _license_hint(license_))]
    if license_ != OTHER:
        given = {"license_name": name, "license_link": link}
        hint = "leave it out, or set license: other"
        return [
            _problem(run, key, f"found {value!r}, which means nothing with license: {license_}", "none", hint)
            for key, value in given.items()
            if value
        ]
    problems = []
    expected = "lowercase letters, digits, '-' and '.': my-license-1.0"
    if not name:
        problems.append(_problem(run, "license", "found 'other', and no license_name", f"license_name of {expected}"))
    elif not LICENSE_NAME.fullmatch(name):
        problems.append(_problem(run, "license_name", f"found {name!r}", expected))
    if link and not (LICENSE_LINK.fullmatch(link) and _host(link)):
        found = f"found {link!r}, which nothing would lead to"
        problems.append(_problem(run, "license_link", found, "the address of the licence's text: https://…"))
    return problems


def _host(link: str) -> str | None:
    try:
        return urlsplit(link).hostname
    except ValueError:
        return None


def _license_hint(found: str) -> str:
    """The identifier that is likely meant, however it is spelled: ``Apache 2.0``, ``MIT License``, ``GPLv3``."""
    known = {_squeezed(one): one for one in sorted(LICENSES)}
    near = difflib.get_close_matches(_squeezed(found), known, n=1)
    return f"did you mean {known[near[0]]}?" if near else "for a licence of your own: license: other, license_name: …"


def _squeezed(name: str) -> str:
    return re.sub(r"\b(the|licen[cs]e|version)\b|[^a-z0-9+]", "", name.lower())


def _language_problems(settings: Publish, run: StageRun) -> list[Problem]:
    return [
        _problem(run, "language", f"found {found!r}", EXPECTED, language_hint(found))
        for found in settings.language
        if not is_language(found)
    ]


def _text_problems(settings: Publish, run: StageRun) -> list[Problem]:
    problems = [
        _problem(run, "tags", f"found {tag!r}", "some words on one line, without control characters")
        for tag in settings.tags
        if not _is_line(tag) or tag != tag.strip()
    ]
    message = settings.commit_message
    if message is not None and not (_is_line(message.partition("\n")[0]) and _is_unicode(message)):
        problems.append(_problem(run, "commit_message", f"found {message!r}", "a title on the first line"))
    return problems


def _is_line(text: str) -> bool:
    """Whether a text is one line that shows something, without control characters and line separators."""
    kinds = [unicodedata.category(char) for char in text]
    shows = any(kind[0] not in "CZ" for kind in kinds)
    return shows and not any(kind in ("Cc", "Cs", "Zl", "Zp") for kind in kinds) and not set(text) & set(BIDI)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which no file and no request takes."""
    return not any(unicodedata.category(char) == "Cs" for char in text)


def _problem(run: StageRun, key: str, message: str, expected: str, hint: str = "") -> Problem:
    return Problem(message, f"publish.{key}", run.origins.get(key, ""), expected, hint)
