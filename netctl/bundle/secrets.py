r"""Takes secrets out of text before it is kept: by their own looks, and by the names that stand before them. Pure.

Rather too much than too little; but what a command shows of a node stays, for names of Services and addresses do not
look like this. What was JSON is JSON still: inside of quotes, also of escaped ones (\"), only their inside is masked.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

MASK = b"<masked>"
BASE64 = rb"[A-Za-z0-9+/]"
TAIL = BASE64 + rb"{4,76}={0,2}"
END_OF_LINE = rb"(?:\r?\n|(?:\\r)?\\n)"
"""Also as JSON writes it."""


class Mask(NamedTuple):
    looks: re.Pattern[bytes]
    clues: Sequence[bytes]
    """One of these, in lower case, stands wherever it looks so. Most text has none and is not searched."""
    put: bytes | Callable[[re.Match[bytes]], bytes] = MASK


def behind(clue: bytes, looks: bytes) -> Mask:
    """What follows the first group."""
    return Mask(re.compile(looks, re.IGNORECASE), (clue,), rb"\g<1>" + MASK)


def unless_public(found: re.Match[bytes]) -> bytes:
    return found[0] if found["public"] else MASK


LOOKS = (
    Mask(re.compile(rb"-----BEGIN [A-Z0-9 ]+-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|(?=\")|\Z)"), (b"-----begin",)),
    # Base64 of the above, and what is left of one where a log was cut.
    Mask(re.compile(rb"LS0tLS1CRUdJTi[\w+/=]+"), (b"ls0tls1crudjti",)),
    Mask(re.compile(rb"(\n[ \t]*)" + BASE64 + rb"{60,76}(?:\r?\n[ \t]*" + TAIL + rb")+"), (b"\n",), rb"\g<1>" + MASK),
    Mask(
        re.compile(rb"(\"|\\n[ \t]*)" + BASE64 + rb"{60,76}(?:(?:\\r)?\\n[ \t]*" + TAIL + rb")+"),
        (b"\\n",),
        rb"\g<1>" + MASK,
    ),
    Mask(re.compile(rb"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"), (b"eyj",)),
    Mask(re.compile(rb"\$(?:1|2[abxy]?|5|6|7|y|gy|argon2\w*|apr1)\$[^\s:\"'\\,]+"), (b"$",)),
    Mask(
        re.compile(rb"\b(?:gh[opsur]_|github_pat_|gl(?:pat|rt)-|dckr_pat_|npm_|hv[sbr]\.|xox[abeprs]-|sk-)[\w-]{12,}"),
        tuple(b"ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- glrt- dckr_pat_ npm_ hvs. hvb. hvr. xox sk-".split()),
    ),
    Mask(re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), (b"akia", b"asia")),
    # WireGuard's keys: a private one looks as a public one does, but for what stands before it.
    Mask(
        re.compile(
            rb"(?P<public>(?:[Pp]ublic[-_ ]?[Kk]ey|[Pp]eer)[\"'\\\s:=]{1,6})?"
            rb"(?<![\w+/=])" + BASE64 + rb"{42}[AEIMQUYcgkosw048]=(?![\w+/=])"
        ),
        (b"=",),
        unless_public,
    ),
    behind(b"://", rb"(://)[^\s/@\"'\\<>]+(?=@)"),
    behind(b"@", rb"(?<=[\s\"'=])([\w.-]+:)[^\s@:/\"'\\]+(?=@[\w\[(])"),
    behind(b"authorization", rb"(\bauthorization(?:\\?[\"'])?\s*[:=]\s*(?:\\?[\"'])?)[^\r\n\"'\\]+"),
    behind(b"cookie", rb"(\bcookie\s*:\s*)[^\r\n\"'\\]+"),
    behind(b"bearer", rb"(\bbearer\s+)[^\s\"'\\]{6,}"),
    # curl -u name:password, etcdctl --user name:password
    behind(b"-u", rb"((?<![\w-])(?:--user|-u)(?:[= ]|\"\s*,\s*\")[\"']?[\w.@-]+:)[^\s\"'\\]+"),
)

# -- by name ----------------------------------------------------------------------------------------------------------

NAMES = tuple(
    re.compile(name)
    for name in (
        *(
            rb"(?<!by)(?<!com)pass(?:word|wd|phrase|code)?s?",
            rb"pwd",
            rb"psk",
            rb"secrets?",
            rb"tokens?",
            rb"credentials?",
            rb"cookies?",
        ),
        *(rb"sig(?:nature)?", rb"jwt", rb"otp", rb"dockerc(?:onfigjson|fg)", rb"key[-_.]?data", rb"keys?"),
    )
)
"""How the names of secrets end, in lower case; each begins with letters, so that text without them is passed quickly.
One that goes on, as `token-file`, is of something else.
"""
OF_KEY = re.compile(
    rb"(?:pre-?_?shared|private|secret|access|api|auth|encryption|client|account|master|signing|session)[-_. ]?\Z"
)
"""What a key must be, to be one."""
GOES_ON = b" \t\r\n'\"\\:="
QUOTED = rb"\"(?:[^\"\\]|\\.)*\"|(?P<deep>\\+)\"(?:(?!(?P=deep)\").)*?(?P=deep)\"|'[^'\n\"\\]*'"
"""`deep`: in JSON within JSON."""
WORD = rb"(?:[^\s\"'\\]|\\(?![nrtu\"']))+"
BLOCK = re.compile(
    rb"(?P<before>\s*:[ \t]*)[|>][-+\d]*[ \t]*"
    rb"(?P<value>(?:" + END_OF_LINE + rb"[ \t]+(?:[^\r\n\"\\]|\\(?!n))*)+)"
)
"""YAML's: the lines below, as far as they are indented."""
FIELD = re.compile(rb"(?P<before>\\*\"\s*:\s*)(?P<value>" + QUOTED + rb"|\[[^\[\]]*\]|-?\d[\d.eE+-]*)")
"""Of JSON: "name": "TEXT", \"name\": \"TEXT\"."""
PAIR = re.compile(
    rb"(?P<before>'?\s*(?::=|=>|[:=]| is )[ \t]*)(?P<value>" + QUOTED + rb"|(?!(?:null|true|false)\b)" + WORD + rb")"
)
"""name=TEXT, name: TEXT."""
OPTION = re.compile(rb"(?P<before>[ \t]+|\\u0000|\\*\"\s*,\s*)(?P<value>" + QUOTED + rb"|(?!-)" + WORD + rb")")
"""--etcd-password TEXT, and the same as two items of a list."""
QUOTE = re.compile(rb"\\*[\"']")
STARTS_A_WORD = re.compile(rb"[\s\"'=,;]|\\u0000")
LONGEST_KIND = 12
LONGEST_WORD = 320
"""The names of a Service and its namespace, and more."""


def masked(text: bytes) -> bytes:
    """The same text without what looks like a secret."""
    # A line that comes first is like others; arguments in /proc/PID/cmdline stand between zeros.
    text = b"\n" + text.replace(b"\0", b" ")
    clues = text.lower()
    for looks, wanted, put in LOOKS:
        if any(clue in clues for clue in wanted):
            text = looks.sub(put, text)
    return b"".join(without_named(text))[1:]


def without_named(text: bytes) -> Iterator[bytes]:
    done = 0
    for begin, end in sorted(names(text.lower())):
        if begin < done:
            continue
        word = text[max(0, begin - LONGEST_WORD) : begin]
        start = max((each.end() for each in STARTS_A_WORD.finditer(word)), default=0)
        opened, begun = word[start - 1 : start], word[start:]
        if value := value_behind(text, end, opened, begun):
            yield text[done : value.start("value")]
            yield in_its_quotes(value["value"], value["before"])
            done = value.end("value")
    yield text[done:]


def names(lower: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each that something may stand behind."""
    for name in NAMES:
        for found in name.finditer(lower):
            begin, end = found.span()
            is_name = name is not NAMES[-1] or OF_KEY.search(lower, max(0, begin - LONGEST_KIND), begin)
            if is_name and lower[end : end + 1] in GOES_ON:
                yield begin, end


def value_behind(text: bytes, at: int, opened: bytes, begun: bytes) -> re.Match[bytes] | None:
    """Of a name that ends at `at`, whose word began with these bytes, behind this one."""
    if found := BLOCK.match(text, at) or FIELD.match(text, at):
        return found
    if pair := PAIR.match(text, at):
        bare = pair["value"][:1] not in (b'"', b"'", b"\\")
        # `default/reset-password:80` is a Service and its port.
        if pair["before"] == b":" and bare and b"/" in begun:
            return None
        if pair["before"] == b"=" and bare and opened in (b'"', b"'"):
            # As in systemd's Environment=: all words up to the quote.
            return re.compile(rb"(?P<before>=)(?P<value>[^\\\n" + opened + rb"]+)").match(text, at)
        return pair
    return OPTION.match(text, at) if begun.startswith(b"-") else None


def in_its_quotes(value: bytes, before: bytes) -> bytes:
    """The mask for a value; what was a number or a list in JSON gets quotes."""
    if quote := QUOTE.match(value):
        return quote[0] + MASK + quote[0]
    named = QUOTE.match(before)
    return named[0] + MASK + named[0] if named and before.rstrip().endswith(b":") else MASK
