"""Captions of drawn birds: sentences put together from attributes, each with the record of what it claims.

The words follow the captions that Reed et al. (2016) collected for CUB: lower case, one sentence, parts of the body with
their colours, rarely where the bird is.  A caption never names what the picture hides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Bird = Mapping[str, str]
Claims = dict[str, str]


@dataclass(frozen=True)
class Caption:
    """A sentence and the attributes that it names, with the values that it gives them."""

    text: str
    claims: Claims


PARTS: dict[str, tuple[tuple[str, bool], ...]] = {
    # the attribute -> its names, and whether the name is a plural
    "crown": (("crown", False), ("cap", False), ("crown", False)),
    "head": (("head", False), ("face", False), ("cheek", False)),
    "throat": (("throat", False), ("chin", False), ("throat", False)),
    "back": (("back", False), ("upper body", False), ("back", False)),
    "wing": (("wings", True), ("wing feathers", True), ("wings", True)),
    "belly": (("belly", False), ("underside", False), ("underparts", True), ("abdomen", False), ("belly", False)),
    "tail": (("tail", False), ("tail feathers", True), ("rectrices", True), ("tail", False)),
    "legs": (("legs", True), ("feet", True), ("tarsi", True), ("legs", True)),
}
BILLS = {
    "cone": ("short thick", "stubby", "small conical", "short cone shaped"),
    "needle": ("thin pointed", "slender", "fine straight", "needle like"),
    "long": ("very long", "long straight", "long thin"),
    "hooked": ("hooked", "sharp hooked", "strong hooked"),
    "flat": ("flat", "broad flat", "wide rounded"),
    "curved": ("curved", "downward curved", "long bent"),
}
SIZES = {"small": ("small", "little", "tiny"), "medium": ("medium sized", "mid sized"), "large": ("large", "big")}
NOUNS = {
    # what it is like, and what it is
    "songbird": (("", "songbird"), ("", "perching bird"), ("", "garden bird")),
    "wren": (("plump", "bird"), ("round", "bird"), ("chubby", "bird"), ("stout", "bird")),
    "swallow": (("slender", "bird"), ("sleek", "bird"), ("fork tailed", "bird")),
    "wader": (("", "wading bird"), ("", "shorebird"), ("long legged", "bird"), ("tall", "bird")),
    "duck": (("", "duck"), ("", "waterfowl"), ("", "waterbird")),
    "hawk": (("", "raptor"), ("", "bird of prey"), ("", "hawk")),
}
PLACES = {
    "branch": ("perched on a branch", "sitting in a tree", "resting on a bough"),
    "wire": ("perched on a wire", "sitting on a cable", "resting on a power line"),
    "grass": ("standing in the grass", "on a green meadow", "on the lawn"),
    "sand": ("standing on the sand", "on a beach", "on sandy ground"),
    "snow": ("standing in the snow", "on snowy ground", "in a white winter field"),
    "water": ("swimming in the water", "floating on a lake", "paddling on a pond"),
}
WADING = ("wading in shallow water", "standing in a pond", "at the edge of a lake")
LIGHTS = {
    "day": ("under a blue sky", "on a clear day", "in daylight"),
    "dusk": ("at dusk", "at sunset", "in the evening light"),
    "overcast": ("under a cloudy sky", "on a dull day", "in pale light"),
}
POSES = {"upright": ("sitting upright", "holding itself upright", "stretching up"), "feeding": ("with its head down", "bending down", "searching for food")}
FACING = {"left": ("facing left", "looking to the left"), "right": ("facing right", "looking to the right")}
HAS = ("has", "has", "displays", "shows", "features")


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


class _Writer:
    """One caption in the making: what it may still say, and what it has claimed."""

    def __init__(self, bird: Bird, rng: random.Random) -> None:
        self.bird, self.rng, self.claims = bird, rng, {}
        self.swims = bird["shape"] == "duck" and bird["scene"] == "water"
        parts = [p for p in PARTS if p != "legs" or not self.swims]
        self.parts = rng.sample(parts, len(parts))
        self.marks = [_bill, _wing_mark, _belly_mark, _face, _ring, _crest]
        rng.shuffle(self.marks)

    def say(self, *names: str) -> None:
        for name in names:
            self.claims[name] = self.bird[name]

    def one_of(self, phrases: tuple[str, ...]) -> str:
        return self.rng.choice(phrases)

    def part(self) -> tuple[str, str, bool]:
        """A part of the body that has not been named: its colour, its name, whether that is a plural."""
        while True:
            name = self.parts.pop()
            if name not in self.claims:
                self.say(name)
                return self.bird[name], *self.rng.choice(PARTS[name])

    def thing(self) -> str:
        """A noun phrase: a part in its colour, two parts of one colour, or a mark."""
        if self.rng.random() < 0.42:
            while self.marks:
                phrase = self.marks.pop()(self)
                if phrase:
                    return phrase
        colour, name, plural = self.part()
        twins = [p for p in self.parts if self.bird[p] == colour and p not in self.claims]
        if twins and self.rng.random() < 0.6:
            other, also_plural = self.rng.choice(PARTS[twins[0]])
            if plural == also_plural:
                self.parts.remove(twins[0])
                self.say(twins[0])
                name = f"{name} and {other}"
        return f"{colour} {name}" if plural else _article(f"{colour} {name}")

    def things(self, number: int) -> str:
        phrases = [self.thing() for _ in range(number)]
        joined = " and " if not any(" and " in p for p in phrases) else " , along with " if len(phrases) == 2 else " , and "
        return " , ".join(phrases[:-1]) + joined + phrases[-1] if number > 1 else phrases[0]

    def clause(self, whose: str = "its") -> str:
        """`its belly is white`."""
        colour, name, plural = self.part()
        return f"{whose} {name} {'are' if plural else 'is'} {colour}"

    def noun(self, adjectives: bool = True) -> str:
        """`small blue and white bird`, without an article; some claim nothing at all."""
        words, rng = [], self.rng
        if adjectives and rng.random() < 0.35:
            self.say("size")
            words.append(self.one_of(SIZES[self.bird["size"]]))
        kind = "bird"
        if rng.random() < 0.3:
            self.say("shape")
            like, kind = self.rng.choice(NOUNS[self.bird["shape"]])
            words += [like] if like else []
        if adjectives and rng.random() < 0.25 and self.bird["back"] != self.bird["belly"]:
            self.say("back", "belly")
            words.append(f"{self.bird['back']} and {self.bird['belly']}")
        return " ".join([*words, kind])

    def place(self) -> str:
        self.say("scene")
        if self.bird["scene"] == "water" and self.bird["shape"] != "duck":
            return self.one_of(WADING)
        return self.one_of(PLACES[self.bird["scene"]])

    def ending(self, chance: float = 0.3) -> str:
        """Where it is, how it holds itself, where it looks, or the light; mostly nothing."""
        if self.rng.random() >= chance:
            return ""
        kind = self.rng.choice(("scene", "scene", "pose", "facing", "light"))
        if kind == "scene" and "scene" not in self.claims:
            return f" , {self.place()}"
        if kind == "pose" and self.bird["pose"] in POSES and not self.swims:
            self.say("pose")
            return f" , {self.one_of(POSES[self.bird['pose']])}"
        if kind == "light":
            self.say("light")
            return f" , {self.one_of(LIGHTS[self.bird['light']])}"
        self.say("facing")
        return f" , {self.one_of(FACING[self.bird['facing']])}"


def _bill(w: _Writer) -> str:
    name, words = w.one_of(("bill", "beak", "beak")), []
    which = w.rng.random()
    if which < 0.75:
        w.say("bill")
        words.append(w.one_of(BILLS[w.bird["bill"]]))
    if which > 0.4:
        w.say("bill colour")
        words.append(w.bird["bill colour"])
    return _article(" ".join([*words, name]))


def wing_mark(bird: Bird) -> str:
    """The colour of bars and spots on its wing."""
    return "black" if bird["wing"] in ("white", "yellow") else "white"


def band_colour(bird: Bird) -> str:
    """The colour of a band across its breast."""
    return "white" if bird["belly"] == "black" else "black"


def _wing_mark(w: _Writer) -> str:
    kind, colour = w.bird["wing pattern"], wing_mark(w.bird)
    phrases = {
        "plain": ("plain wings", "wings without bars"),
        "bar": (f"a single {colour} wingbar", f"one {colour} bar on its wing"),
        "bars": (f"two {colour} wingbars", f"two {colour} bars on its wing"),
        "spots": (f"{colour} spots on its wing", f"{colour} spotted wings"),
    }
    w.say("wing pattern")
    return w.one_of(phrases[kind])


def _belly_mark(w: _Writer) -> str:
    kind, colour = w.bird["belly pattern"], band_colour(w.bird)
    phrases = {
        "plain": ("a plain breast", "an unmarked breast"),
        "streaks": ("a streaked breast", "streaks on its breast", "a striped breast"),
        "spots": ("a spotted breast", "a speckled breast", "dots on its breast"),
        "band": (f"a {colour} band across its breast", f"a {colour} breast band"),
    }
    w.say("belly pattern")
    return w.one_of(phrases[kind])


def _face(w: _Writer) -> str | None:
    phrases = {"mask": ("a black mask", "a black stripe through its eye", "a black eye stripe"), "eyebrow": ("a white eyebrow", "a white stripe above its eye")}
    if w.bird["face"] == "plain":
        return None
    w.say("face")
    return w.one_of(phrases[w.bird["face"]])


def _ring(w: _Writer) -> str | None:
    colour = w.bird["eye ring"]
    if colour == "none":
        return None
    w.say("eye ring")
    return w.one_of((f"a {colour} eye ring", f"a {colour} ring around its eye", f"{colour} rimmed eyes"))


def _crest(w: _Writer) -> str | None:
    if w.bird["crest"] == "no":
        return None
    w.say("crest")
    if w.rng.random() < 0.5:
        w.say("crown")
        return _article(f"{w.bird['crown']} crest")
    return w.one_of(("a pointed crest", "a tuft of feathers on its head", "a crested head"))


def _has(w: _Writer) -> str:
    return f"{w.one_of(('this', 'this', 'the'))} {w.noun()} {w.one_of(HAS)} {w.things(w.rng.choice((1, 2, 2, 3)))}{w.ending()}"


def _with(w: _Writer) -> str:
    return f"{_article(w.noun())} with {w.things(w.rng.choice((2, 2, 3)))}{w.ending()}"


def _clauses(w: _Writer) -> str:
    noun = w.noun(adjectives=False)
    return f"the {noun} has {w.thing()} , and {w.clause()}{w.ending()}"


def _coloured(w: _Writer) -> str:
    colour = w.bird["back"]
    w.say("back")
    over = w.one_of((f"is {colour} on its back", f"is {colour} above", f"has a {colour} back".replace("a orange", "an orange")))
    return f"this {w.noun(adjectives=False)} {over} and has {w.things(2)}{w.ending()}"


def _placed(w: _Writer) -> str:
    place = w.place()
    return f"{place} , {w.one_of(('this bird', 'the bird'))} {w.one_of(HAS)} {w.things(w.rng.choice((1, 2)))}{w.ending(0.15)}"


def _there(w: _Writer) -> str:
    place = w.place()
    return f"{w.one_of(('there is', 'here is', 'we see'))} {_article(w.noun())} {place} , with {w.things(w.rng.choice((1, 2)))}"


def _whose(w: _Writer) -> str:
    noun = _article(w.noun())
    return f"{noun} whose {w.clause('').strip()} and whose {w.clause('').strip()}{w.ending()}"


def _its(w: _Writer) -> str:
    first, second = w.clause(w.one_of(("its", "the"))), w.clause("the")
    return f"{first} , {second} , and it has {w.thing()}"


FRAMES: tuple[Callable[[_Writer], str], ...] = (_has, _has, _with, _with, _clauses, _coloured, _placed, _there, _whose, _its)


def describe(bird: Bird, rng: random.Random, number: int = 10) -> list[Caption]:
    """So many captions of one bird, given as attribute -> value; the frames come in random order."""
    frames = [FRAMES[i % len(FRAMES)] for i in range(number)]
    rng.shuffle(frames)
    found = []
    for frame in frames:
        writer = _Writer(bird, rng)
        text = frame(writer)
        found.append(Caption(text, writer.claims))
    return found
