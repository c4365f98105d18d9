"""demo_api.transcript.text_so_far: one user's answer, pieced together from what the demo shows while it decodes."""

from __future__ import annotations

import json
import pickle
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import cycle, pairwise
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from demo_api.transcript import Reader, starts_with_stop_token
from demo_api.transcript.text_so_far import TextSoFar

CASES = Path(__file__).parents[1] / "transcripts"
QUICK = settings(max_examples=150)

LLAMA_HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
CHATML_HEADER = "<|im_end|>\n<|im_start|>assistant"
# What stands before the prompt, and between prompt and answer. The demo of 2025 has no newlines there.
TEMPLATES = {
    "Llama 3 of 2025": ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>", LLAMA_HEADER),
    "Llama 3 of 2026": ("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n", f"{LLAMA_HEADER}\n\n"),
    "ChatML": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n", f"{CHATML_HEADER}\n"),
}
WITHOUT_HEADERS = ("user\n\n", "assistant\n\n")
ANY_TEMPLATE = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)


def joined(prompt: str, tails: Iterable[str]) -> str:
    text = TextSoFar(prompt)
    return "".join([text.feed(tail) for tail in tails])


def bare(text: str) -> str:
    return "".join(text.split())


# The demo, as far as its tails go


def whole_texts(template: tuple[str, str], prompt: str, tokens: Sequence[str | bytes]) -> list[str]:
    """Prompt and answer after each iteration; the first token comes from the prefill."""
    raw = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    begin = (template[0] + prompt.strip() + template[1]).encode()
    counts = range(min(2, len(raw)), len(raw) + 1)
    return [(begin + b"".join(raw[:count])).decode(errors="replace") for count in counts]


def tail_of(text: str) -> str:
    return ("..." + text[-97:] if len(text) > 100 else text).replace("\n", " ")


def decode(prompt: str, tokens: Sequence[str | bytes], template: tuple[str, str] = TEMPLATES["Llama 3 of 2026"]) -> str:
    """All pieces of the answer that is made of these tokens."""
    return joined(prompt, map(tail_of, whole_texts(template, prompt, tokens)))


COUNTING = " ".join(map(str, range(60)))  # longer than the window, and without repetition


def words(text: str) -> list[str]:
    """One token for each word, with the blank before it."""
    return [f" {word}" if place else word for place, word in enumerate(text.split(" "))]


def cleaned_up(text: str) -> str:
    """As transformers decodes Llama 3's tokens (clean_up_tokenization_spaces)."""
    for ending in (".", "?", "!", ","):
        text = text.replace(f" {ending}", ending)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text


# The recorded transcripts


def recorded(name: str) -> list[tuple[str, list[str], str | None]]:
    """Each user's prompt, tails, and answer as logged; None where the run ended before that."""
    folder = CASES / name
    prompts = [entry["prompt"] for entry in json.loads((folder / "prompts.json").read_text())]
    answers = [answer["response"] for answer in json.loads((folder / "expected.json").read_text()).get("answers", [])]
    reader, tails = Reader(prompts), defaultdict(list)
    for event in [
        *reader.feed("stdout", (folder / "stdout.txt").read_bytes()),
        *reader.feed("stderr", (folder / "stderr.txt").read_bytes()),
    ]:
        if event.kind == "text":
            tails[event.data["user"]].append(str(event.data["tail"]))
    return [
        (prompt, tails[user], answers[user] if user < len(answers) else None)
        for user, prompt in enumerate(prompts)
        if tails[user]
    ]


@pytest.mark.parametrize(
    "name",
    [
        "2025-07-batch4_limit-json",
        "2025-07-blank_edges-text",
        "2025-07-control_chars-text",
        "2025-07-forged_prompt-text",
        "2025-07-prompt_200_emoji-json",
        "2026-04-batch4_limit-text",
        "2026-04-weird_prompts-text",
    ],
)
def test_recorded_tails_make_the_logged_answer(name: str) -> None:
    users = recorded(name)
    assert users
    for prompt, tails, answer in users:
        assert answer is not None
        assert joined(prompt, tails) == answer.replace("\n", " ")


@pytest.mark.parametrize("name", ["2025-07-cut_record-json", "2025-07-segv-text"])
def test_recorded_tails_show_what_a_run_that_broke_off_had_answered(name: str) -> None:
    users = recorded(name)
    assert users
    for prompt, tails, answer in users:
        assert answer is None
        assert joined(prompt, tails) == tails[-1].rpartition("<|end_header_id|>")[2].strip() != ""


# What is shown


@ANY_TEMPLATE
def test_each_piece_is_what_one_tail_adds(template: tuple[str, str]) -> None:
    prompt = " What\n\nis it? "
    tokens = ["An", " apple", " is", "\n\n", "a", " fruit", "."]
    text = TextSoFar(prompt)
    pieces = [text.feed(tail_of(whole)) for whole in whole_texts(template, prompt, tokens)]
    assert pieces == ["An apple", " is", "", "  a", " fruit", "."]


def test_blanks_at_the_ends_are_left_out() -> None:
    assert decode("Hi", ["\n", " ", "\t", " An", " apple", "\n", "\t", " "]) == "An apple"


def test_a_tail_that_adds_nothing_shows_nothing() -> None:
    text = TextSoFar("Hi")
    tail = f"Hi{LLAMA_HEADER}An apple"
    assert [text.feed(tail) for _ in range(3)] == ["An apple", "", ""]


@pytest.mark.parametrize("before", ["", COUNTING], ids=["at first", "behind the window's width"])
def test_half_a_character_waits_for_its_other_half(before: str) -> None:
    tokens = [*before, *(bytes([byte]) for byte in "\U0001f600".encode()), "!"]
    whole = whole_texts(("", LLAMA_HEADER), "Hi", tokens)
    text = TextSoFar("Hi")
    pieces = [text.feed(tail_of(each)) for each in whole]
    assert "".join(pieces) == f"{before}\U0001f600!"
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_very_end_is_not_shown() -> None:
    assert decode("Hi", ["An", " apple", "\U0001f600".encode()[:3]]) == "An apple"


@pytest.mark.parametrize("tokens", [["4"], ["4", "\n"], ["4", "\n", "2"]], ids=["one", "two", "three"])
def test_the_shortest_answers(tokens: list[str]) -> None:
    assert decode("Hi", tokens) == "".join(tokens).strip().replace("\n", " ")


def test_first_tokens_so_long_that_the_header_is_out_of_sight_are_not_shown() -> None:
    assert decode("Hi", ["x" * 40, "y" * 40, " then", " more"]) == "then more"


@pytest.mark.parametrize("prompt", ["Hi", "A long prompt, " * 20], ids=["short", "long"])
def test_without_a_header_the_answer_is_shown_from_its_third_token_on(prompt: str) -> None:
    assert decode(prompt, ["One", " two", " three", " four"], WITHOUT_HEADERS) == "three four"


def test_of_an_answer_that_repeats_itself_the_least_is_shown() -> None:
    answer = "la " * 50
    shown = decode("Sing", ["Well:", *(["la "] * 50)])
    assert shown.startswith("Well:la la")
    assert "…" not in shown
    assert 20 < shown.count("la") < answer.count("la")


def test_the_answer_goes_on_behind_what_it_repeated() -> None:
    assert decode("Sing", ["Well:", *(["la "] * 90), "no ", "more"]).endswith(" la no more")


def test_what_continues_nothing_follows_an_ellipsis() -> None:
    whole = whole_texts(TEMPLATES["ChatML"], "Count", words(" ".join(map(str, range(200)))))
    tails = [tail_of(each) for each in whole]
    begin, end = joined("Count", tails[:60] + tails[120:]).split(" … ")
    assert begin.split() == [str(number) for number in range(61)]
    assert end.split() == [str(number) for number in range(97, 200)]  # the window's first is whole


def test_where_no_header_was_seen_the_prompt_is_not_shown_behind_a_gap_either() -> None:
    prompt, answer = "A long prompt, " * 20, words(COUNTING)
    tails = [tail_of(whole) for whole in whole_texts(WITHOUT_HEADERS, prompt, answer)]
    assert joined(prompt, [tails[0], *tails[40:]]).split() == COUNTING.split()[42:]
    assert joined(prompt, [tails[0], tail_of("Another text. " * 20), *tails[:4]]).split() == ["2", "3", "4"]
    assert joined(prompt, [*tails[:2], *tails[40:]]).split() == ["2", "…", *COUNTING.split()[42:]]


def test_one_token_wider_than_the_window_leaves_a_gap() -> None:
    assert decode("Draw", ["Line:", "\n", "-" * 120, " end"]) == f"Line: … {'-' * 97} end"


def test_decoding_that_begins_anew_shows_the_answer_again_behind_an_ellipsis() -> None:
    tails = [tail_of(whole) for whole in whole_texts(TEMPLATES["ChatML"], "Hi", words("An apple is a fruit."))]
    assert bare(joined("Hi", tails[:3] + tails)) == bare("An apple is a … An apple is a fruit.")


def test_decoding_that_begins_anew_by_chance_where_it_was_shows_no_prompt() -> None:
    last = "<"
    # So that the first character of the new window continues the old one.
    prompt = (last + "z") * 100
    tails = [tail_of(whole) for whole in whole_texts(TEMPLATES["ChatML"], prompt, ["An", " apple", f" is{last}"])]
    for begin in (prompt, prompt[1:]):
        again = [tail_of(whole) for whole in whole_texts(TEMPLATES["ChatML"], begin, ["An", " apple"])]
        assert bare(joined(prompt, tails + again)) == bare(f"An apple is{last} … An apple")


# Headers in prompts and answers

QUOTED = {
    "a header": LLAMA_HEADER,
    "a header and an answer": f"Why does {LLAMA_HEADER}\n\nParis. come out?",
    "many headers": f"{LLAMA_HEADER}{CHATML_HEADER}\n" * 3 + "?",
    "itself": f"Hi{LLAMA_HEADER}\n\nHi",
    "a long text behind a header": f"{LLAMA_HEADER} and then {'more ' * 30}",
}


@pytest.mark.parametrize("prompt", QUOTED.values(), ids=QUOTED)
def test_a_prompt_that_quotes_headers_does_not_leak_into_the_answer(prompt: str) -> None:
    assert decode(prompt, words("An apple is a fruit.")) == "An apple is a fruit."


def test_a_prompt_of_headers_only_leaves_the_answer_from_its_third_token_on() -> None:
    # Nothing in the window tells the last of them from those before.
    assert decode(LLAMA_HEADER * 30, words("An apple is a fruit."), ("", LLAMA_HEADER)) == "is a fruit."


HEADER_TOKENS = ["<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"]
CHATML_TOKENS = ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]


@ANY_TEMPLATE
def test_an_answer_that_quotes_headers_is_kept(template: tuple[str, str]) -> None:
    plain = words(COUNTING)
    whole, parts = [HEADER_TOKENS, CHATML_TOKENS], [HEADER_TOKENS[3:], CHATML_TOKENS[2:]]
    for start in (0, 1, 2, 30):
        for tokens in parts if start == 0 else whole + parts:  # a whole one begins with a stop token
            answer = plain[:start] + tokens + plain[start:] + tokens + plain
            assert decode("Count", answer, template) == "".join(answer).replace("\n", " ")


@ANY_TEMPLATE
def test_an_answer_that_quotes_its_prompt_with_the_header_is_kept(template: tuple[str, str]) -> None:
    prompt = "the prompt, whole"
    for tokens in (HEADER_TOKENS, CHATML_TOKENS):
        answer = ["It", " reads:", f" {prompt}", *tokens, "and", " then", " this."]
        assert decode(prompt, answer, template) == "".join(answer).replace("\n", " ")


# Spaces that are taken back

TAKEN_BACK = {
    "a question mark": ["What", " ", "?", " ", "!", " Yes", " ."],
    "a quotation": ["the", " '", " quoted", " '", " word", " '", "s"],
    "code": ["x", " =", " {\n", "   ", " '", "size", "':", " ", "1", ",\n", "   ", " '", "re", "':", " ", "2", " }"],
}


@pytest.mark.parametrize("tokens", TAKEN_BACK.values(), ids=TAKEN_BACK)
def test_spaces_that_are_taken_back_lose_nothing_else(tokens: list[str]) -> None:
    tokens = [COUNTING[at : at + 7] for at in range(0, len(COUNTING), 7)] + tokens
    whole = [cleaned_up(text) for text in whole_texts(TEMPLATES["Llama 3 of 2026"], "Hi", tokens)]
    assert bare(joined("Hi", map(tail_of, whole))) == bare("".join(tokens))


# Any demo, any text

SOME = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")
PARTS = st.sampled_from(
    [
        *("the ", " and", "word", " 12", "x = 1", ", ", ".", "?", " '", "s", "\n\n", "    ", "\t", "\r\n", "…", "..."),
        *("é", "\U0001f600", "\u4e2d\u6587", "e\u0301", "\u2028", "\xa0", "\x00", "User 0] ", "[User 0] tail"),
    ]
)
HEADERS = st.sampled_from([LLAMA_HEADER, CHATML_HEADER, *HEADER_TOKENS, *CHATML_TOKENS, "<|", "|>"])
PLAIN = st.lists(st.one_of(PARTS, st.text(SOME, max_size=8)), max_size=50).map("".join)
QUOTING = st.lists(st.one_of(HEADERS, HEADERS, PARTS, st.text(SOME, max_size=4)), max_size=30).map("".join)
SIZES = st.lists(st.integers(1, 24), min_size=1, max_size=20)
ANY_OF_THEM = st.sampled_from(list(TEMPLATES.values()))


def cut(text: str, sizes: Sequence[int]) -> list[bytes]:
    """Tokens of so many bytes, so that some hold a part of a character."""
    raw, ends = text.encode(), [0]
    for size in cycle(sizes):
        if ends[-1] >= len(raw):
            break
        ends.append(ends[-1] + size)
    return [raw[begin:end] for begin, end in pairwise(ends)] or [b""]


def may_hide(before: str, now: str) -> bool:
    """Whether ``now`` may be read as ``before`` with less added than there was, as in an answer that repeats itself."""
    was, shown = (bare(text[-97:].rstrip("\ufffd")) for text in (before, now))
    added = len(bare(now.rstrip("\ufffd"))) - len(bare(before.rstrip("\ufffd")))
    return any(was.endswith(shown[:known]) for known in range(max(len(shown) - added, 0) + 1, len(shown) + 1))


def is_part_of(part: str, whole: str) -> bool:
    """Whether ``whole`` with some characters left out is ``part``."""
    characters = iter(whole)
    return all(character in characters for character in part)


def assert_shown(shown: str, answer: str, whole: Sequence[str]) -> None:
    assume(all(bare(text[-97:]) for text in whole))
    if any(may_hide(before, now) for before, now in pairwise(whole)):
        assert is_part_of(bare(shown), bare(answer))
    else:
        assert shown == answer.strip().replace("\n", " ")


@QUICK
@given(ANY_OF_THEM, PLAIN, st.one_of(PLAIN, QUOTING), SIZES)
@example(TEMPLATES["Llama 3 of 2025"], "Hi", "x" * 300, [1])
@example(TEMPLATES["ChatML"], "Hi" * 20, "".join(map(str, range(300))), [3])
def test_the_pieces_are_the_answer(template: tuple[str, str], prompt: str, answer: str, sizes: list[int]) -> None:
    assume(not any(bare(prompt + header) in bare(answer) for header in (LLAMA_HEADER, CHATML_HEADER)))
    assume(not starts_with_stop_token(answer.lstrip()))
    whole = whole_texts(template, prompt, cut(answer, sizes))
    assert_shown(joined(prompt, map(tail_of, whole)), answer, whole)


@QUICK
@given(ANY_OF_THEM, QUOTING, PLAIN, SIZES)
@example(("", LLAMA_HEADER), LLAMA_HEADER * 4, "An apple is a fruit.", [4])
def test_no_prompt_leaks_into_the_answer(template: tuple[str, str], prompt: str, answer: str, sizes: list[int]) -> None:
    assume(not starts_with_stop_token(answer.lstrip()))
    whole = whole_texts(template, prompt, cut(answer, sizes))
    shown = joined(prompt, map(tail_of, whole))
    from_third = whole[-1].removeprefix(whole[0].rstrip("\ufffd"))
    if shown != from_third.strip().replace("\n", " "):
        assert_shown(shown, answer, whole)


@QUICK
@given(ANY_OF_THEM, st.lists(PARTS, max_size=8).map("".join), st.lists(PARTS, min_size=1, max_size=60))
def test_whatever_spaces_are_taken_back(template: tuple[str, str], prompt: str, tokens: list[str]) -> None:
    whole = [cleaned_up(text) for text in whole_texts(template, prompt, tokens)]
    # A text that has become shorter moves the window back, and nothing continues it then.
    assume(all(len(before) <= len(now) for before, now in pairwise(whole)))
    shown, answer = joined(prompt, map(tail_of, whole)), "".join(tokens)
    assert_shown(bare(shown), bare(answer), whole)


HOSTILE = st.one_of(st.text(), st.text(st.characters()), QUOTING, PLAIN.map(tail_of), QUOTING.map(tail_of))


def size_of(text: TextSoFar) -> int:
    return len(pickle.dumps(text))


@QUICK
@given(HOSTILE, st.lists(HOSTILE, max_size=20))
@example("", ["", " ", "\ufffd", "...", LLAMA_HEADER, CHATML_HEADER.replace("\n", " ")])
@example("\ud83d" * 32768, ["\ud83d" * 100, " " * 100, "\ufffd" * 100])
@example(LLAMA_HEADER * 600, [LLAMA_HEADER * 2] * 3)
def test_no_text_raises_and_little_is_kept(prompt: str, tails: list[str]) -> None:
    text = TextSoFar(prompt)
    for tail in tails:
        assert isinstance(text.feed(tail), str)
        assert size_of(text) < 3000


def test_an_endless_answer_is_read_in_little_memory() -> None:
    alphabet = "abc \t\U0001f600.\ufffd<|eot_id|>"
    chance, shown = random.Random(0), "Hi" + LLAMA_HEADER + "Well: "
    text = TextSoFar("Hi" * 16384)
    for _ in range(3000):
        shown = (shown + chance.choice(alphabet))[-200:]
        text.feed(tail_of(shown))
    assert size_of(text) < 3000


@ANY_TEMPLATE
@pytest.mark.parametrize("stop", ["<|eot_id|>", "<|im_end|>"])
def test_nothing_is_shown_where_the_first_token_is_the_end(template: tuple[str, str], stop: str) -> None:
    assert decode("Stop at once.", [stop, *[" again"] * 40], template) == ""


@ANY_TEMPLATE
def test_an_answer_that_spells_a_stop_token_is_shown(template: tuple[str, str]) -> None:
    tokens = ["<|", "eot", "_id", "|>", " ends", " it"]
    assert decode("What ends it?", tokens, template) == "<|eot_id|> ends it"
