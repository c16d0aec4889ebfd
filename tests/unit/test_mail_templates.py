"""Every template in both languages: complete, the same in text and HTML, without holes, tracking or foreign hosts."""

import html
import re

import pytest
from jinja2 import Environment, meta
from jinja2.exceptions import UndefinedError

from dragonfly.mail.kinds import RULES, Field, MailKind
from dragonfly.mail.rendering import TEMPLATES, Press, Site, Written
from dragonfly.mail.rules import LANGUAGES, are_right

SITE = Site("Dragonfly", "https://dragonfly.example")
EVERYWHERE = {"site_name", "site_url", "language", "unsubscribe_link"}
PARTS = {"button", "code", "facts", "quoted", "self", "style"}
UNSUBSCRIBE = "https://dragonfly.example/api/mail/unsubscribe?token=acc-1.welcome.abc"
SAMPLES: dict[str, str | int] = {
    "hours": 24,
    "minutes": 30,
    "link": "https://dragonfly.example/verify#token=AbCdEf0123456789",
    "text": "The first line.\n\nThe last line, with <b>marks</b> & signs.",
    "detail": "One line.\nAnother one.",
}


def values_of(kind: MailKind, word: int = 0) -> dict[str, str | int]:
    """Values that fit; `word` chooses from closed lists."""
    values: dict[str, str | int] = {}
    for name, field in RULES[kind].fields.items():
        values[name] = field[word % len(field)] if isinstance(field, tuple) else SAMPLES.get(name, f"the {name}")
    assert are_right(kind, values)
    return values


def written(kind: MailKind, language: str, values: dict[str, str | int] | None = None) -> Written:
    link = UNSUBSCRIBE if RULES[kind].choice else None
    return Press(SITE).write(kind, language, values or values_of(kind), unsubscribe_link=link)


def words_of(page: str) -> str:
    """The visible words of a page, in one line."""
    body = page.partition("<body")[2].partition(">")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


every_mail = pytest.mark.parametrize("language", LANGUAGES)
every_kind = pytest.mark.parametrize("kind", MailKind, ids=lambda kind: kind.value)


def test_there_is_a_folder_for_each_kind_and_no_other() -> None:
    folders = {path.name for path in TEMPLATES.iterdir() if path.is_dir()} - {"footer", "page"}
    assert folders == {kind.value for kind in MailKind}
    for folder in folders:
        files = sorted(str(path.relative_to(TEMPLATES / folder)) for path in (TEMPLATES / folder).rglob("*.*"))
        parts = ("body.html", "body.txt", "subject.txt")
        assert files == [f"{language}/{part}" for language in LANGUAGES for part in parts]


@every_mail
@every_kind
def test_a_template_names_all_its_values_and_nothing_else(kind: MailKind, language: str) -> None:
    folder = TEMPLATES / kind.value / language
    environment = Environment()
    named = {
        part: meta.find_undeclared_variables(environment.parse((folder / part).read_text()))
        for part in ("subject.txt", "body.txt", "body.html")
    }
    assert named["body.txt"] - EVERYWHERE == named["body.html"] - EVERYWHERE - PARTS
    body = named["body.txt"] - EVERYWHERE
    assert body | named["subject.txt"] - EVERYWHERE | set(RULES[kind].fields) == set(RULES[kind].fields)
    assert set(RULES[kind].fields) <= body | named["subject.txt"]


def named_in(kind: MailKind, language: str, part: str) -> list[str]:
    """Values, and words of closed lists, in the order in which a template names them."""
    fields = RULES[kind].fields
    known = {*fields, *(word for field in fields.values() if isinstance(field, tuple) for word in field)}
    marked = re.findall(r"{[{%].*?[%}]}", (TEMPLATES / kind.value / language / part).read_text())
    return [name for name in re.findall(r"\b\w+\b", " ".join(marked)) if name in known]


@every_kind
def test_both_languages_name_the_same_values_in_the_same_order(kind: MailKind) -> None:
    for part in ("subject.txt", "body.txt", "body.html"):
        one, other = (named_in(kind, language, part) for language in LANGUAGES)
        assert one == other


@every_mail
@every_kind
def test_text_and_html_say_the_same(kind: MailKind, language: str) -> None:
    mail = written(kind, language)
    plain = " ".join(mail.text.replace("---", "").split())
    shown = words_of(mail.html)
    for paragraph in re.findall(r"<(?:p|h1|pre)[^>]*>(.*?)</(?:p|h1|pre)>", mail.html, re.DOTALL):
        said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", paragraph)).split())
        assert said in plain, said
    for line in mail.text.replace("---", "").splitlines():
        for piece in re.split(r"[:：]\s*", line.strip()) if not line.strip().startswith("http") else []:
            assert " ".join(piece.split()).strip("/") in shown or "//" in piece, piece
    for link in re.findall(r'href="([^"]+)"', mail.html):
        assert html.unescape(link) in mail.text


@every_mail
@every_kind
def test_a_mail_loads_nothing_tracks_nothing_and_leads_only_to_us(kind: MailKind, language: str) -> None:
    mail = written(kind, language)
    assert not re.search(
        r"<(?:img|script|iframe|link|object|form|input|video|audio|svg)\b|url\(|@import|src=", mail.html
    )
    for link in re.findall(r'href="([^"]+)"', mail.html):
        assert link.startswith(SITE.url)
    assert f'<html lang="{language}">' in mail.html
    assert '<meta name="color-scheme" content="light dark">' in mail.html
    assert "{{" not in mail.html + mail.text + mail.subject
    assert "\n" not in mail.subject
    assert 0 < len(mail.subject) <= 120
    is_chinese = re.search(r"[\u4e00-\u9fff]", mail.text) is not None
    assert is_chinese == (language == "zh")


@every_mail
@every_kind
def test_non_essential_mails_say_how_to_stop_them_and_others_do_not(kind: MailKind, language: str) -> None:
    mail = written(kind, language)
    stoppable = RULES[kind].choice is not None
    assert (UNSUBSCRIBE in mail.text) == stoppable
    assert (html.escape(UNSUBSCRIBE) in mail.html) == stoppable


@every_mail
@every_kind
def test_a_mail_with_a_hole_is_not_written(kind: MailKind, language: str) -> None:
    for name in values_of(kind):
        values = {key: value for key, value in values_of(kind).items() if key != name}
        with pytest.raises(UndefinedError):
            Press(SITE).write(kind, language, values, unsubscribe_link=None)


@every_mail
@every_kind
def test_every_word_of_a_closed_list_is_written_out(kind: MailKind, language: str) -> None:
    for name, field in RULES[kind].fields.items():
        if isinstance(field, tuple):
            said = {written(kind, language, {**values_of(kind), name: word}).text for word in field}
            assert len(said) == len(field), f"{name} reads the same for several words"


@every_mail
@every_kind
def test_values_stay_values(kind: MailKind, language: str) -> None:
    hostile = "<script>alert('1')</script>{{ 7 * 7 }}&amp;\"'"
    values = {
        name: hostile if field in (Field.LINE, Field.TEXT) else value
        for (name, value), field in zip(values_of(kind).items(), RULES[kind].fields.values(), strict=True)
    }
    mail = written(kind, language, values)
    assert "<script" not in mail.html
    assert "49" not in mail.text + words_of(mail.html)
    if hostile in values.values():
        assert hostile in mail.text
        assert " ".join(hostile.split()) in words_of(mail.html)


@every_mail
def test_the_same_values_always_give_the_same_words(language: str) -> None:
    assert written(MailKind.LOW_BALANCE, language) == written(MailKind.LOW_BALANCE, language)
