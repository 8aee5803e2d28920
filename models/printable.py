"""Text from outside, escaped for a terminal or a log."""

from __future__ import annotations


def escaped(text: str) -> str:
    r"""The text with unprintable characters escaped as in a Python literal.

    >>> escaped("new\nline, café")
    'new\\nline, café'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def excerpt(raw: bytes, most: int) -> str:
    r"""The beginning of some bytes as printable text, with their number if it is cut.

    >>> excerpt(b'{"a":1}\xff\x1b[2J', 100)
    '{"a":1}\\xff\\x1b[2J'
    >>> excerpt(b"x" * 2000, 5)
    'xxxxx… (2000 bytes)'
    """
    text = escaped(raw[:most].decode(errors="backslashreplace"))
    return f"{text}… ({len(raw)} bytes)" if len(raw) > most else text
