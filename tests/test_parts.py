"""Partitions: tuples are row numbers, and what does not fit together is refused."""

import pytest
import torch

from mmvae_lite.data.parts import Part, as_float


def part(**changes):
    held = {
        "batch": {"a": torch.arange(6).float()[:, None], "b": torch.tensor([[0], [128], [255]], dtype=torch.uint8)},
        "classes": torch.tensor([0, 1, 2, 0]),
        "index": {"a": torch.tensor([5, 0, 1, 5]), "b": torch.tensor([2, 0, 1, 0])},
        "facts": {"speaker": torch.tensor([7, 7, 8, 8])},
    }
    return Part(**(held | changes))


def test_takes_the_rows_that_the_index_names():
    taken = part().take(torch.tensor([0, 3]))
    assert taken["a"].tolist() == [[5.0], [5.0]]
    assert taken["b"].tolist() == [[1.0], [0.0]]


def test_a_modality_without_index_is_its_own_row_number():
    p = part(batch={"a": torch.arange(4).float(), "b": part().batch["b"]}, index={"b": torch.tensor([2, 0, 1, 0])})
    assert p.take(slice(1, 3))["a"].tolist() == [1.0, 2.0]
    assert len(p) == 4


def test_the_first_tuples():
    p = part().first(2)
    assert len(p) == 2 and p.classes.tolist() == [0, 1] and p.facts["speaker"].tolist() == [7, 7]
    assert len(part().first(99)) == 4
    assert len(p.batch["a"]) == 6, "rows are kept, since tuples name them by number"


def test_levels_become_numbers():
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    x = torch.tensor([300.0])
    assert as_float(x) is x


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"classes": torch.zeros(3, dtype=torch.int64)}, "as many items"),
        ({"facts": {"speaker": torch.zeros(5)}}, "as many items"),
        ({"index": {"a": torch.tensor([6, 0, 0, 0]), "b": torch.zeros(4, dtype=torch.int64)}}, "'a': found rows 0 to 6, wanted 0 to 5"),
        ({"index": {"a": torch.tensor([-1, 0, 0, 0]), "b": torch.zeros(4, dtype=torch.int64)}}, "found rows -1"),
    ],
)
def test_refuses_what_does_not_fit(as_a_reader, changes, message):
    with pytest.raises(ValueError, match=message):
        part(**changes)


def test_refuses_an_unknown_modality():
    with pytest.raises(KeyError, match="'c'"):
        part(index={"c": torch.zeros(4, dtype=torch.int64)})


def test_words_are_kept_by_number_and_taken_one_hot():
    p = part(batch={"a": torch.arange(6).float()[:, None], "b": torch.tensor([[2, 0], [1, 1], [3, 2]], dtype=torch.int16)}, words={"b": 4})
    taken = p.first(2).take(slice(0, 2))["b"]
    assert taken.dtype == torch.float32 and taken.shape == (2, 2, 4)
    assert taken.argmax(-1).tolist() == [[3, 2], [2, 0]] and taken.sum().item() == 4


def test_refuses_a_number_that_is_no_word(as_a_reader):
    with pytest.raises(ValueError, match="words of 'b': found numbers 0 to 255, wanted 0 to 3"):
        part(words={"b": 4})
    with pytest.raises(ValueError, match="found numbers 0 to 255, wanted 0 to 254"):
        part(words={"b": 255})
