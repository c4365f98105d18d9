"""One user's answer while it decodes, pieced together from the ends of the text that the demo logs.

After every iteration the demo logs the end of each user's text, chat template and prompt included: all of it up to 100
characters, otherwise ``...`` and the last 97, newlines as spaces. What one such tail has more than the tail before it
is what was added to the answer.
"""

from __future__ import annotations

from bisect import bisect_left

from demo_api.transcript.decoding import starts_with_stop_token

_WINDOW = 97
_HALF = "\ufffd"  # how a character is shown of which only some tokens are there
_LOST = " … "
# What the templates of Llama 3 and ChatML (SmolLM2, Qwen) put between prompt and answer, without blanks.
_HEADERS = ("<|eot_id|><|start_header_id|>assistant<|end_header_id|>", "<|im_end|><|im_start|>assistant")
_SHORTEST_HEADER = min(map(len, _HEADERS))


class TextSoFar:
    """One user's answer as far as the tails show it. Best effort: for people who wait, no replacement of the answer.

    - Newlines are spaces; blanks at the answer's ends are left out, as by the demo; a half character waits for its
      other half.
    - The answer begins behind the template's header, where that stands behind the known prompt: a prompt may quote
      such headers. Where the first tail shows none (another template, special tokens left out, two first tokens of more
      than 76 characters), it may be prompt to its end but for those two tokens: the answer is shown from the third on.
    - Where a tail can continue the one before in several ways, the least is added: of an answer that goes on repeating
      itself, what leaves its last 97 characters as they were is not shown.
    - Where the first token is the end of the answer, nothing is shown of what the demo decodes after it.
    - What continues nothing (a tail was lost, a token brought 97 characters, decoding began anew) follows an ellipsis.

    What it keeps is some hundred characters, however long prompt and answer are.

    Args:
        prompt: the user's, as it was given to the demo.
    """

    def __init__(self, prompt: str) -> None:
        bare = _without_blanks(prompt)
        self._headers = [_Header(bare, header) for header in _HEADERS]
        self._header_seen = False
        self._before: str | None = None  # the last tail, without blanks
        self._has_text = False
        self._ended_first = False
        self._gap = ""  # what stands before the next piece

    def feed(self, tail: str) -> str:
        """Takes in the next tail, as an event of kind ``text`` has it; no text makes it raise.

        Returns:
            what the tail adds to the answer, perhaps nothing; all of them joined are the answer so far.
        """
        window = tail[-_WINDOW:].rstrip(_HALF)
        # Transformers removes spaces when it decodes Llama 3's tokens (clean_up_tokenization_spaces), so one that this
        # tail has may be gone from the next: "the '" becomes "the's", and "what " becomes "what?".
        inked = [index for index, character in enumerate(window) if not character.isspace()]
        if not inked:
            return ""
        window = window[: inked[-1] + 1]
        before, self._before = self._before, _without_blanks(window)
        answer_at = max(header.find_end(window) for header in self._headers)
        if before is None:
            self._header_seen = answer_at > 0
            self._ended_first = answer_at > 0 and starts_with_stop_token(window[answer_at:].lstrip())
            return self._piece(window[answer_at or len(window) :])
        known = _overlap(before, self._before)
        new_at = inked[known - 1] + 1 if known else 0
        # An answer may quote its prompt and the header, but not in one token.
        if not known or answer_at - new_at >= _SHORTEST_HEADER:
            self._gap = _LOST if self._has_text else ""
            new_at = answer_at or (0 if self._header_seen else len(window))
        return self._piece(window[new_at:])

    def _piece(self, new: str) -> str:
        if not self._has_text:
            new = new.lstrip()
        if not new or self._ended_first:
            return ""
        piece, self._gap, self._has_text = self._gap + new, "", True
        return piece


class _Header:
    """What one template puts between this prompt and the answer."""

    def __init__(self, prompt: str, header: str) -> None:
        self._mark = header[header.rindex("<") :]
        self._known = (prompt + header)[-_WINDOW:]
        # A shorter piece stands in the prompt too, and what follows it may be prompt.
        lengths = range(len(self._mark), len(self._known) + 1)
        # Where a piece is not in the prompt, no longer one is: so a few looks at a long prompt are enough.
        first = bisect_left(lengths, True, key=lambda length: self._known[-length:] not in prompt)
        self._least = lengths[first] if first < len(lengths) else _WINDOW + 1

    def find_end(self, window: str) -> int:
        """Where the header ends in the window; 0 if it is not there."""
        at = window.rfind(self._mark)
        while at >= 0:
            end = at + len(self._mark)
            shown = _without_blanks(window[:end])
            if len(shown) >= self._least and (self._known.endswith(shown) or shown.endswith(self._known)):
                return end
            at = window.rfind(self._mark, 0, at)  # an answer may quote headers as well
        return 0


def _overlap(before: str, now: str) -> int:
    """With how many of its first characters, at most, ``now`` repeats the last ones of ``before``."""
    return next(length for length in range(len(now), -1, -1) if before.endswith(now[:length]))


def _without_blanks(text: str) -> str:
    """For comparison only: templates strip the prompt, tails have no newlines, transformers removes spaces."""
    return "".join(text.split())
