"""Captions as numbers: a vocabulary, sentences as rows of word numbers, and back (Shi et al. 2019).

As in the authors' program: word 0 stands for every rare word, 1 fills up a caption, 2 ends it; the others come in the
order in which the training captions use them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_positive

RARE, PADDING, END = "<exc>", "<pad>", "<eos>"
SPECIAL = (RARE, PADDING, END)
LENGTH = 32
MIN_COUNT = 3

TOKEN = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*|[^\sa-z0-9]")


def tokens(text: str) -> list[str]:
    """The words and marks of a caption, in lower case; a hyphen or an apostrophe inside a word stays in it.

    The paper's program asks NLTK, which keeps capitals and parts `it's` in two.  Raises TypeError for what is no string.
    """
    if not isinstance(text, str):
        raise TypeError(f"a caption is a string, found {type(text).__name__}")
    return TOKEN.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words that captions are made of, by number.

    words: `<exc>`, `<pad>`, `<eos>`, then the others.  length: the positions of a caption, its end included.
    Raises ValueError when the first three words are others, or a word comes twice.
    """

    words: tuple[str, ...]
    length: int = LENGTH
    number: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive("length", self.length)
        if self.words[:3] != SPECIAL:
            raise ValueError(f"a vocabulary starts with {', '.join(SPECIAL)}: found {', '.join(self.words[:3]) or 'no words'}")
        twice = [word for word, n in Counter(self.words).items() if n > 1]
        if twice:
            raise ValueError(f"a vocabulary holds each word once: found {twice[0]!r} more often")
        object.__setattr__(self, "number", {word: i for i, word in enumerate(self.words)})

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, captions: Iterable[str], min_count: int = MIN_COUNT, length: int = LENGTH) -> "Vocabulary":
        """The words that occur more than `min_count` times in these captions, in order of their first use.

        Raises ValueError when no word does.
        """
        counts = Counter(word for text in captions for word in tokens(text))
        kept = [word for word, n in counts.items() if n > min_count]
        if not kept:
            raise ValueError(f"no word occurs more than {min_count} times in these captions; give more of them or a smaller min_count")
        return cls((*SPECIAL, *kept), length)

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "captions length"]:
        """Word numbers [captions, length] of type int16: the words, the end, padding.  Rare words become 0, long captions are cut."""
        rows = torch.full((len(captions), self.length), self.number[PADDING], dtype=torch.int16)
        for row, text in zip(rows.numpy(), captions):
            ids = [self.number.get(word, 0) for word in tokens(text)[: self.length - 1]] + [self.number[END]]
            row[: len(ids)] = ids
        return rows

    def encode_exactly(self, text: str) -> Int[Tensor, "length"]:
        """One caption as word numbers [length], as `encode`, for text that a reader typed.

        Raises ValueError when it is empty, too long or holds words that the vocabulary lacks, and says how many.
        """
        found = tokens(text)
        if not found:
            raise ValueError("the caption is empty; write a few words such as those of the captions shown")
        if len(found) > self.length - 1:
            raise ValueError(f"the caption has {len(found)} words, wanted at most {self.length - 1}; shorten it")
        unknown = list(dict.fromkeys(word for word in found if word not in self.number or word in SPECIAL))
        if unknown:
            named = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise ValueError(
                f"{len(unknown)} of {len(set(found))} words are not among the {len(self) - 3} that the captions use: {named}; write the caption without them"
            )
        return self.encode([text])[0]

    def decode(self, ids: Int[Tensor, "captions length"]) -> list[str]:
        """The captions of word numbers, up to their end; padding is left out, a rare word is `<exc>`.

        Raises ValueError for a number that is no word.
        """
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(self):
            raise ValueError(f"word numbers: found {int(ids.min())} to {int(ids.max())}, wanted 0 to {len(self) - 1}")
        captions = []
        for row in ids.tolist():
            row = row[: row.index(self.number[END])] if self.number[END] in row else row
            captions.append(" ".join(self.words[i] for i in row if i != self.number[PADDING]))
        return captions

    def one_hot(self, ids: Int[Tensor, "captions length"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "captions length words"]:
        """What the caption networks read, [captions, length, words]."""
        return F.one_hot(ids.long(), len(self)).to(dtype)

    def read(self, logits: Float[Tensor, "captions length words"]) -> list[str]:
        """The captions of the likeliest word at every position of a decoder's output."""
        return self.decode(logits.argmax(-1))
