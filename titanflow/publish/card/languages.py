"""The languages that a Hub knows: those that a card may name, and the one that somebody probably meant."""

from __future__ import annotations

import difflib
import re

SPECIAL = ("code", "multilingual")
"""The names that a Hub takes beside the codes of ISO 639."""
EXPECTED = f"a code of ISO 639-1 (two lowercase letters) or 639-3 (three), or {' or '.join(SPECIAL)}"
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


def is_language(code: str) -> bool:
    return code in CODES or code in SPECIAL or THREE_LETTERS.fullmatch(code) is not None


def language_hint(found: str) -> str:
    """The code that a language's name, a locale or a country's code likely means."""
    lowered = found.strip().lower()
    code = re.split("[-_]", lowered)[0]
    code = COUNTRIES.get(code, code)
    if is_language(code):
        return f"did you mean {code}?"
    names = NAMES | {one: one for one in SPECIAL}
    near = difflib.get_close_matches(lowered, names, n=1)
    return f"did you mean {names[near[0]]}?" if near else "of program text: code"
