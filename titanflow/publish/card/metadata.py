"""The licences, languages and tags that a Hub accepts in a card's front matter, checked before anything is trained.

A Hub verifies ``license`` when the card is committed, and shows an error on the model's page for an unknown language.
huggingface_hub asks a Hub about both, but a plan must do without one.
"""

from __future__ import annotations

import difflib
import re
import unicodedata

from titanflow.common.errors import Problem
from titanflow.config.keys.after_training import Publish
from titanflow.config.keys.licenses import LICENSE_EXPECTED, LICENSES, is_link
from titanflow.publish.card.markdown import BIDI
from titanflow.runs.contract import StageRun

OTHER = "other"
"""The identifier of a licence that the Hub doesn't list and that has a name of its own."""
LICENSE_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")

SPECIAL = ("code", "multilingual")
"""The names that a Hub takes beside the codes of ISO 639."""
LANGUAGE_EXPECTED = f"a code of ISO 639-1 (two lowercase letters) or 639-3 (three), or {' or '.join(SPECIAL)}"
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj
kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv
ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th
ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
CODES = frozenset(_CODES.split())
"""All codes of ISO 639-1, of two letters; the standard isn't extended any more."""
THREE_LETTERS = re.compile(r"(?!q[a-t])[a-z]{3}")
"""The shape of the 8,000 codes of ISO 639-2 and 639-3; qaa to qtz stand for no language."""
_NAMES = """
arabic=ar bengali=bn bulgarian=bg catalan=ca chinese=zh croatian=hr czech=cs danish=da dutch=nl english=en
estonian=et finnish=fi french=fr german=de greek=el gujarati=gu hebrew=he hindi=hi hungarian=hu icelandic=is
indonesian=id irish=ga italian=it japanese=ja korean=ko latin=la latvian=lv lithuanian=lt malay=ms marathi=mr
norwegian=no persian=fa polish=pl portuguese=pt punjabi=pa romanian=ro russian=ru serbian=sr slovak=sk slovenian=sl
spanish=es swahili=sw swedish=sv tamil=ta telugu=te thai=th turkish=tr ukrainian=uk urdu=ur vietnamese=vi welsh=cy
"""
NAMES = dict(pair.split("=") for pair in _NAMES.split())
"""The codes of languages by their English names."""
COUNTRIES = {"cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "in": "hi", "iw": "he", "jp": "ja", "ua": "uk", "us": "en"}
"""Codes of countries, and a withdrawn one, that stand for no language; `se` and `kr` do stand for one."""


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
    if link and not is_link(link):
        found = f"found {link!r}, which is no web address"
        problems.append(_problem(run, "license_link", found, "the address of the licence's text: https://…"))
    return problems


def _license_hint(found: str) -> str:
    """The identifier that is likely meant, however it is spelled: ``Apache 2.0``, ``MIT License``, ``GPLv3``."""
    known = {_squeezed(one): one for one in sorted(LICENSES)}
    near = difflib.get_close_matches(_squeezed(found), known, n=1)
    return f"did you mean {known[near[0]]}?" if near else "for a licence of your own: license: other, license_name: …"


def _squeezed(name: str) -> str:
    return re.sub(r"\b(the|licen[cs]e|version)\b|[^a-z0-9+]", "", name.lower())


def _language_problems(settings: Publish, run: StageRun) -> list[Problem]:
    return [
        _problem(run, "language", f"found {found!r}", LANGUAGE_EXPECTED, _language_hint(found))
        for found in settings.language
        if not _is_language(found)
    ]


def _is_language(code: str) -> bool:
    return code in CODES or code in SPECIAL or THREE_LETTERS.fullmatch(code) is not None


def _language_hint(found: str) -> str:
    """The code that a language's name, a locale or a country's code likely means."""
    lowered = found.strip().lower()
    code = re.split("[-_]", lowered)[0]
    code = COUNTRIES.get(code, code)
    if _is_language(code):
        return f"did you mean {code}?"
    names = NAMES | {one: one for one in SPECIAL}
    near = difflib.get_close_matches(lowered, names, n=1)
    return f"did you mean {names[near[0]]}?" if near else "of program text: code"


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
    return Problem(message, f"{run.stage}.{key}", run.origins.get(key, ""), expected, hint)
