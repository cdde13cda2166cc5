"""Values of short answers: against exact arithmetic, against math-verify, and what has none."""

import itertools
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.judge.value import same_value, value_of


def wrapped(text: str) -> str:
    return f"({text})"


def written(children):
    """(text, exact value) of larger expressions out of smaller ones."""
    two = st.tuples(children, children)
    return st.one_of(
        two.map(lambda p: (f"{wrapped(p[0][0])} + {wrapped(p[1][0])}", p[0][1] + p[1][1])),
        two.map(lambda p: (f"{wrapped(p[0][0])}-{wrapped(p[1][0])}", p[0][1] - p[1][1])),
        two.map(lambda p: (rf"{wrapped(p[0][0])} \cdot {wrapped(p[1][0])}", p[0][1] * p[1][1])),
        two.map(lambda p: (wrapped(p[0][0]) + wrapped(p[1][0]), p[0][1] * p[1][1])),
        two.filter(lambda p: p[1][1] != 0).map(
            lambda p: (rf"\frac{{{p[0][0]}}}{{{p[1][0]}}}", p[0][1] / p[1][1])
        ),
        children.map(lambda c: (f"-{wrapped(c[0])}", -c[1])),
        children.map(lambda c: (f"{wrapped(c[0])}^{{2}}", c[1] ** 2)),
        children.map(lambda c: (rf"\sqrt{{{wrapped(c[0])}^2}}", abs(c[1]))),
    )


numbers = st.one_of(
    st.integers(0, 999).map(lambda n: (str(n), Fraction(n))),
    st.integers(0, 9999).map(lambda n: (f"{n / 100:.2f}", Fraction(n, 100))),
)


@settings(max_examples=300, deadline=None)
@given(st.recursive(numbers, written, max_leaves=6))
def test_an_expression_has_its_exact_value(expression):
    text, exact = expression
    value = value_of(text)
    if len(text) > 200 or value is None:  # too long or too deep: left to math-verify
        return
    expected = Decimal(exact.numerator) / Decimal(exact.denominator)
    assert abs(value - expected) <= Decimal("1e-20") * max(1, abs(expected))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac12", "0.5"),
        (r"\frac{10}{20}", "1/2"),
        (r"\sqrt{8}", r"2\sqrt2"),
        (r"\sqrt[3]{27}", "3"),
        (r"\frac{\sqrt{2}}{2}", r"1/\sqrt{2}"),
        (r"2\pi r", r"r \cdot 2 \pi"),
        ("(x+1)^2", "x^2+2x+1"),
        ("(a-b)(a+b)", "a^2-b^2"),
        ("2^{10}", "2^10"),
        ("2^{-1}", "0.5"),
        ("-3^2", "-9"),
        ("--3", "3"),
        (r"\infty", r"+\infty"),
    ],
)
def test_equal_values(one, other):
    assert same_value(value_of(one), value_of(other)) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x+1", "y+1"),
        ("x^2", "2x"),
        (r"\infty", r"-\infty"),
        (r"\infty", "99999"),
        (r"\sqrt{2}", "2"),
        ("1000000", "1001200"),
        ("(a+b)^2", "a^2+b^2"),
        ("ab", "a+b"),
    ],
)
def test_values_far_apart(one, other):
    assert same_value(value_of(one), value_of(other)) is False


@pytest.mark.parametrize(("one", "other"), [("0.333", "1/3"), (r"\pi", "3.14"), ("1.0001", "1")])
def test_a_rounded_value_is_for_math_verify_to_judge(one, other):
    assert same_value(value_of(one), value_of(other)) is None


AMBIGUOUS = ["1/2x", r"3\frac{1}{2}", "x2", "1 2", "e^2", "2i", "2^3^2", r"1/2\pi"]
OTHER = ["", "x=4", "1,234", "50%", r"\text{4}", r"\sin x", "3!", "x<3", "(1,2)", "{", "1/0", "2^"]
TOO_LARGE = ["9^{9^{9^9}}", "9**9", "10^{1001}", "(" * 150 + "1" + ")" * 150, "1+" * 200 + "1"]
NOT_REAL = [r"\sqrt{-1}", "(-8)^{1/3}", "0^0", r"\infty-\infty"]


@pytest.mark.parametrize("text", AMBIGUOUS + OTHER + TOO_LARGE + NOT_REAL)
def test_what_has_no_value_is_left_alone(text):
    assert value_of(text) is None


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=r"0123456789.+-*/^(){}[]\abexfracsqrtpi ", max_size=60))
def test_any_text_is_read_without_an_error(text):
    value = value_of(text)
    assert value is None or not value.is_nan()


def test_the_worst_text_takes_no_time():
    start = time.process_time()
    for text in ("9^{1000}" * 25, "(" * 200, r"\sqrt{2}^{999.5}" * 12, "1/" * 100):
        value_of(text)
    assert time.process_time() - start < 2


def test_what_it_decides_is_what_math_verify_says():
    """Every two of these, written as models write them."""
    math_verify = pytest.importorskip("math_verify")
    texts = ["4", "4.0", r"\frac{8}{2}", "2^2", r"\sqrt{16}", r"\frac{1}{2}", "1/2", "0.5", "-4"]
    texts += [r"2\sqrt{3}", r"\sqrt{12}", r"3\pi", r"\pi \cdot 3", "x+1", "1+x", "2x", "x^2"]
    parsed = {text: math_verify.parse(f"\\boxed{{{text}}}") for text in texts}
    for one, other in itertools.combinations(texts, 2):
        decided = same_value(value_of(one), value_of(other))
        assert decided is not None
        assert decided == math_verify.verify(parsed[one], parsed[other]), (one, other)
