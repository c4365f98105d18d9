"""Shows what models, people and servers say on a terminal, without obeying it."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    """A text with what cannot be seen, or would be obeyed, as escapes such as ``\\x1b``; the space stays.

    Args:
        keep: characters that are left as they are, such as the line feed.
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def shortened(text: str, most: int = 120) -> str:
    """A text of at most so many characters: a longer one is cut, and ends with three dots."""
    return text if len(text) <= most else text[: most - 3] + "..."
