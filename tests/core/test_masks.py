"""Comparisons and masks are torch's."""

import pytest
import torch

from recipe.core import masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(
    ("ours", "torchs"),
    [(masks.equal, torch.eq), (masks.less, torch.lt), (masks.at_most, torch.le)],
)
def test_comparisons(ours, torchs, dtype):
    x, y = (torch.randint(-3, 4, (5, 7)).to(dtype) for _ in range(2))
    for left, right in ((x, y), (x, 1), (x.t(), y.t()), (x[:0], y[:0])):
        assert torch.equal(ours(left, right), torchs(left, right))


def test_of_a_tensor_with_gradient():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert masks.less(x, 1.5).tolist() == [True, False]


def test_number_is_new():
    mask = torch.tensor([[True, False]])
    number = masks.number(mask, torch.float64)
    assert number.dtype == torch.float64 and number.tolist() == [[1.0, 0.0]]
    masks.number(mask, torch.int8).zero_()
    assert mask.tolist() == [[True, False]]
