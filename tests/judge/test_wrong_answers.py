"""Wrong answers that the judge has rewarded once, each beside a right one of its form: found by an
attack on it. A pair is (ground truth, response or content of its box)."""

import time

import pytest

pytest.importorskip("math_verify")

from recipe.judge import compute_score, extract_answer
from recipe.judge import equivalence as judge_equivalence
from recipe.judge.equivalence import Equivalence
from recipe.judge.responses import Grading, judge_prompts
from recipe.judge.reward import verdict


def score(truth: str, answer: str) -> float:
    response = answer if "box" in answer or answer.endswith(".") else rf"\boxed{{{answer}}}"
    return compute_score("test", response, truth)["score"]


WRONG = [
    # numbers side by side are no sum
    ("7", r"3 \quad 4"),
    ("7", "3 4"),
    ("7", r"x = 3 \quad 4"),
    ("12", "3 4 5"),
    ("(7,1)", r"(3 \ 4, 1)"),
    # the last part within brackets is not all of them
    ("6", "5(=6)"),
    ("6", "(5,,6)"),
    ("7", "5(6,7)"),
    ("7", "5(6=7)"),
    ("5", "2(x=5)"),
    ("2", "(1,3)^2"),
    # an operator without an operand
    ("4", "/4"),
    ("4", "^4"),
    ("9", "-/9"),
    ("5", r"\frac{}{5}"),
    ("5", r"\frac{5}{}"),
    ("5", r"\lfloor 5"),
    ("5", r"\max 5"),
    ("5", r"\partial 5"),
    # false equations of numbers that are written out
    ("5", "-5 = 5"),
    ("5", r"x=\frac{9}{2}=5"),
    ("5", "x=-6=5"),
    ("5", f"-{'1' * 60} = 5"),
    ("5", f"-{'1' * 60} = {'2' * 60}/{'3' * 60} = 5"),
    ("0.5", r"\frac13=0.5"),
    ("5", "3+4=5"),
    ("7", r"\infty = 7"),
    ("1", r"\infty^0"),
    ("0", r"e^{-\infty}"),
    ("2^{150}", "(2^{75}+1)(2^{75}-1)"),
    ("3^{200}", "(3^{100}+1)(3^{100}-1)"),
    (r"\pi", r"\pi^\circ"),
    (r"\frac{5\pi}{6}", r"\frac{5\pi}{6}^\circ"),
    (r"\frac{5\pi}{6}", r"\frac{5\pi^\circ}{6}"),
    # derivatives are no fractions
    (r"\frac{y}{x}", r"\frac{dy}{dx}"),
    (r"-\frac{y}{x}", r"-\frac{dy}{dx}"),
    ("x^2", r"\frac{d}{dx}x^3"),
    ("3x^2", r"\frac{d}{dx}(3x^3)"),
    ("y/x", "dy/dx"),
    # a space behind a comma is one of a list
    ("5120", r"5,\,120"),
    # a number beside what makes it another answer
    ("5", "x > 5."),
    ("5", "so x ≠ 5."),
    ("5", r"so x \neq 5."),
    ("5", "it is 5 or more."),
    ("5", "it is at least 5."),
    ("5", "The answer is not 5."),
    ("5", "7 mod 5."),
    ("5", "So 2x = 5."),
    ("x+y<25", "x+y<25_8"),
    ("a<b", "A<B"),
    ("5", r"\text{not}=5"),
    # equations that math-verify cannot solve are not all one
    ("|x|+|y|=1", "|x|+|y|=2"),
    ("|x-3|+|y+2|=4", "|x+7|-|y-1|=9"),
    (r"\sum_{k=1}^n a_k=2", r"\sum_{k=1}^n a_k=3"),
    # thousands that are none
    (r"\{0,100\}", "100"),
    ("0,100", "100"),
    ("100", "0,100"),
    ("125", "0,125"),
    ("125", "0{,}125"),
    (r"\{100,200\}", "100200"),
    (r"\{5,120\}", "5120"),
    ("123", "1$2$3"),
    # parts that are told apart by their names alone
    ("x=1, y=2", "2, 1"),
    ("2, 1", "x=1, y=2"),
    ("x=1, y=2", "x=2, y=1"),
    ("x=1, y=2", "x=1, 2"),
    ("2, 3", "x_1=3, y_2=2"),
    ("x_1=2, x_2=3", "x_1=3, x_2=2"),
    ("x_1=2, x_2=3", "3, 2"),
    # a sum of variables is a name, other sides of equations are none
    ("5", "x+x=5"),
    ("5", "2x+3y=5"),
    ("x=5", "x+y=5"),
    ("5", "x+y=z"),
    ("3/10", "10:3"),
    ("3:10", "3/10"),
    ("0", "0:00"),
    # what is said of two variables, or of both together
    (r"(-\infty,-1)\cup(3,\infty)", r"x<-1 \text{ or } y>3"),
    (r"(-\infty,-1)\cup(3,\infty)", r"x<-1 \text{ or } x>2"),
    (r"(-\infty,-1)\cup(3,\infty)", r"x<-1 \text{ and } x>3"),
    # a response that ends within its box, or within a formula
    ("4", r"so the answer is \boxed{\frac{3}{4"),
    ("5", r"The answer is \boxed{\sqrt{5"),
    ("12", r"So the total is \boxed{12"),
    ("10", "the answer is 2^10."),
    ("3", "the answer is 2√3."),
    ("1/2", "the answer is 3 1/2."),
    ("1/2", r"the answer is 3\frac{1}{2}."),
    ("4", "the answer is 3 / 4."),
    ("5", "the answer is 5 million."),
    ("5", "the answer is x - 5."),
    ("30", "it is at 5:30."),
    ("234", "the answer is 1 234."),
    ("5", "the answer is 5x."),
    ("5", "the answer is 5 - x."),
    ("5", "the answer is n + 5."),
    ("5", "the answer is 2*5."),
    ("3", r"\boxed{x = \boxed{3} + 1}"),
    ("3", r"\boxed{2\boxed{3}}"),
    # what stands before the bar of a set
    (r"(-\infty,3)", r"\{x\in\mathbb{Z} : x<3\}"),
    (r"(-\infty,3)", r"\{x^2 : x<3\}"),
    ("[1,3]", r"\{n\in\mathbb{Z} : 1\le n\le 3\}"),
    ("[1,3]", r"\{(x,y) : 1\le x\le 3\}"),
    ("[1,3]", r"\{y : 1\le x\le 3\}"),
    ("(1,3)", r"\{2x : 1<x<3\}"),
    # each sign by itself
    (r"\pm 1 \pm \sqrt{2}", r"1+\sqrt{2}, -1-\sqrt{2}"),
    (r"(\pm 1,\pm 2)", "(1,2),(-1,-2)"),
    # ratios are no times
    ("1:16", "13:16"),
    ("2:15", "14:15"),
    ("8:30", "20:30"),
    ("8:30 a.m.", "20:30"),
    # braces count
    (r"\sqrt{f(x)+1}", r"\sqrt{f(x)}+1"),
    ("e^{f(x)+1}", "e^{f(x)}+1"),
    (r"x \neq 2^{n+1}", r"x\neq 2^n+1"),
    # a base that is said
    ("25_8", "25_{10}"),
    ("1011_2", "1011_{10}"),
    ("31_8", r"31 \text{ (base 10)}"),
    # percent
    (r"\frac{1}{4}", r"0.25\%"),
    ("0.5", r"0.5\%"),
    # single faults
    ("720", "3!!"),
    ("10^{40}", "10^{40}+1"),
    ("5", r"5 \text{ crores}"),
    ("5", r"5 \text{ fails}"),
    ("|y'|", "|y|"),
    ("5", r"\sum 5"),
    ("5", r"\lim 5"),
    ("5", "5'"),
    ("5", "|5"),
    ("1", "|I|"),
    ("x>3", "5<x>3"),
    (r"x<-1 \text{ or } x>3", r"x<-1 \text{ and } x>3"),
    ("2-x", r"\sqrt{(x-2)^2}"),
    ("2^{3.25}", r"2^3\frac{1}{4}"),
    ("1", "0.333...3"),
    ("3", "the answers are (2,3)."),
    ("5", r"\$5 \text{ per day}"),
    ("-2", r"\left|\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right|"),
    # what math-verify would take out as units, and read a number out of the rest
    ("5", "|5+a|"),
    ("5", "|5 a|"),
    ("5", r"\log(5+q)"),
    ("5", r"\lfloor 5+d\rfloor"),
    ("5", "1/2x(5+a)"),
    ("5", r"\sum_{k=1}^{1}(5-a)"),
    ("2", r"\max(2,a)"),
    ("3", r"\gcd(3,a)"),
    ("|1-a|", "|1-b|"),
    ("|x-a|", "|x-b|"),
    (r"\log(xa)", r"\log(xb)"),
    ("z^2=3+4i", "z^2=3-4i"),
    ("z^3=i", "z^3=-i"),
    ("z^2+iz=1", "z^2-iz=1"),
    ("12", "{3}{4}"),
    ("12", "{3}4"),
    ("12", r"\boxed{\boxed{3}\boxed{4}}"),
    ("30", r"\textcolor{white}{6}5"),
    ("2", r"\underline{1}2"),
    ("100-x", r"\sqrt{(x-100)^2}"),
    ("(x-3)(x-5)", r"\sqrt{(x-3)^2(x-5)^2}"),
    ("x+y=3", r"y=\sqrt{(x-3)^2}"),
    ("2", r"\sqrt12"),
    ("2", r"\sqrt 12"),
    ("64", "2^2^3"),
    ("1", "0^0"),
    ("1", "6/2(1+2)"),
    (r"\frac{1}{2\pi}", r"1/2\pi"),
    ("x^2", r"\frac{dx^3}{dx}"),
    ("2x+1", r"\frac{d(2x^2+x)}{dx}"),
    (r"\frac{y}{x}", r"\frac{\Delta y}{\Delta x}"),
    (r"\frac{2y}{x}", r"\frac{2dy}{dx}"),
    ("3", r"3\approx5"),
    ("3", r"3\approx\text{not }3"),
    ("0.5", r"\frac12\approx 7"),
    ("5", r"\text{minus}=5"),
    ("5", r"\text{greater than}=5"),
    ("199", "99+99=199"),
    ("1025", "2^{10} = 1025"),
    ("721", "6! = 721"),
    (r"\emptyset", r"\{\emptyset\}"),
    (r"\emptyset", r"\{\{\}\}"),
    (r"\{1,2\}", r"\{\{1,2\}\}"),
    ("16/3", r"2\frac{10}{3}"),
    ("4", r"3\frac{4}{4}"),
    ("20/3", r"2\frac{10}{3}"),
    ("-1", "5–6"),
    # without a box, a number or a formula that is a part
    ("5", "The answer is not $5$."),
    ("5", "It is greater than $5$."),
    ("5", "x > $5$."),
    ("5", r"x = -\(5\)."),
    ("5", r"negative \(5\)."),
    ("5", r"it is 3 + \(5\)."),
    ("5", "$5$ or more."),
    ("5", "$5$ million."),
    ("5", "2$5$."),
    ("0.5", r"x > \frac{1}{2}."),
    ("0.5", r"3+\frac{1}{2}."),
    ("0.5", r"2\cdot\frac{1}{2}."),
    ("0.5", r"\sqrt{\frac{1}{2}}."),
    ("0.5", r"\ln\frac{1}{2}."),
    ("0.5", r"\frac{1}{2}x."),
    ("5", "x = - 5."),
    ("5", "x=–5."),
    ("5", "The answer is ±5."),
    ("5", r"The answer is \pm 5."),
    ("5", "It is negative 5."),
    ("5", "It is > 5."),
    ("5", "It isn't 5."),
    ("5", "It cannot be 5."),
    ("5", "It is 5½."),
    ("5", "It is 5 and a half."),
    ("5", "It is 5 i."),
    ("5", "It is 1e5."),
    ("5", "It is 2**5."),
    ("5", "It is sqrt(5)."),
    ("5", "It is log 5."),
    ("5", "It is f(5)."),
    ("5", "It is 5 dozen."),
    ("5", "It is 5 squared."),
    ("3", "It is 5e3."),
    ("500", "It is 5 hundred thousand."),
    ("-5", "It is |-5|."),
    ("0", "It is 5'000."),
    ("2", "It is 101 (base 2)."),
    ("30", "It is 5 hours 30 minutes."),
]
MATRIX = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
RIGHT = [
    (r"11,\! 111,\! 111,\! 100", "11,111,111,100"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    ("5, 120", r"5,\,120"),
    ("1234", r"1,\!234"),
    ("18", "<b>18</b>."),
    ("18", "so it is <answer>18</answer>."),
    ("5", "x = 5."),
    ("8", "so 2^3 = 8."),
    ("12", "The total is at most 20, so 12."),
    ("3.33", r"\frac{10}{3}=3.33"),
    ("-2/3", r"-\frac{4}{6} = -\frac23"),
    ("2x", r"\frac{dy}{dx}=2x"),
    (r"\max(3,x)", r"\max(x,3)"),
    (r"\gcd(a,b)", r"\gcd(b,a)"),
    (r"\sum_{k=1}^{n} k^2", r"\sum_{k=1}^n k^2"),
    (r"2^6 3^5", r"2^{6}\cdot 3^{5}"),
    ("x_{1}+x_{2}=3", "x_1+x_2=3"),
    ("x=1, y=2", "y=2, x=1"),
    ("x=1, x=2", "2, 1"),
    ("2, 3", "x_1=3, x_2=2"),
    ("x=2, x=3", "x_1=3, x_2=2"),
    ("113", "m+n=113"),
    ("3", "x_1+x_2=3"),
    ("x+y=3", "2x+2y=6"),
    ("3/10", "3:10"),
    ("1", r"\sum_{n=1}^{\infty} \frac{1}{2^n}"),
    (r"(-\infty,-1)\cup(3,\infty)", r"x<-1 \text{ or } x>3"),
    (r"x<-1 \text{ or } x>3", r"(-\infty,-1)\cup(3,\infty)"),
    ("30", r"30\degree"),
    ("30", r"30^\degree"),
    ("0.5", r"\sin 30\degree"),
    (MATRIX, MATRIX.replace("\\\\", r"\\[4pt]")),
    ("5", "#### Final Answer\nIt is 5."),
    ("5", "### Answer\n#### **The final answer:**\n5."),
    ("5", "#### Answer: 5."),
    ("18", r"3\cdot 6 = 18"),
    ("14.29", "100/7 = 14.29"),
    ("2i", "(1+i)^2=2i"),
    ("500", r"5 \text{ m} = 500 \text{ cm}"),
    (r"50\%", r"1/2 = 50\%"),
    ("|x|+|y|=1", "|x| + |y| = 1"),
    (r"\{0,100\}", r"\{100, 0\}"),
    (r"\{100,200\}", r"\{100, 200\}"),
    ("0,100", "0, 100"),
    ("1234", "1,234"),
    ("1234567", r"1{,}234{,}567"),
    ("10", r"The answer is \boxed{10}, of \boxed{"),
    ("7/2", "the answer is 3 1/2."),
    ("3/4", "the answer is 3 / 4."),
    ("5000000", "the answer is 5 million."),
    ("18", "Total: 10 + 8 = 18."),
    ("18", "He pays $18."),
    ("18", "**Answer** - 18."),
    ("18", "The answer - 18."),
    ("18", "It is *18*."),
    ("18", "It is **18** eggs."),
    ("18", "So it is 18 - that is all."),
    ("18", "It is 18 (eighteen)."),
    ("-5", "the answer is x = -5."),
    ("5", "the answer is 5 apples."),
    ("5", "the answer is 5cm."),
    ("3", r"\boxed{\boxed{3}}"),
    (r"(-\infty,3)", r"\{x : x<3\}"),
    ("[1,3]", r"\{x \in \mathbb{R} \mid 1\le x\le 3\}"),
    (r"\pm 1 \pm \sqrt{2}", r"1+\sqrt{2}, -1-\sqrt{2}, 1-\sqrt2, \sqrt2-1"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{1+\sqrt{5},1-\sqrt{5},-2\}"),
    (r"\{1\pm\sqrt{5},-2\}", r"1\pm\sqrt5, -2"),
    (r"\pm 1 \mp \sqrt{2}", r"1-\sqrt{2}, -1+\sqrt{2}"),
    ("8:30 p.m.", "20:30"),
    ("8:30 p.m.", "8:30"),
    ("16:81", "16 : 81"),
    ("16:81", r"\frac{16}{81}"),
    (r"e^{f(x)+1}", "e^{f(x)+1}"),
    ("x^{n}", "x^n"),
    ("25", "25_{10}"),
    ("25_8", "25"),
    ("0.5", r"50\%"),
    ("50", r"50\%"),
    (r"50\%", "0.5"),
    ("120", "5!"),
    ("10^{40}+1", "10^{40}+1"),
    (r"2", r"2^3\frac{1}{4}"),
    ("1/3", r"\boxed{0.333...}"),
    (r"\sqrt{(x-2)^2}", r"\sqrt{x^2-4x+4}"),
    ("50", r"50 \text{ percent}"),
    ("1500000", r"\$1.5 \text{ million}"),
    ("18", r"\$18 \text{ dollars}"),
    ("5", "=5"),
    ("5", r"\large 5"),
    ("5", r"\underline{5}"),
    (MATRIX, MATRIX.replace("pmatrix", "bmatrix")),
    ("2^{150}-1", "(2^{75}+1)(2^{75}-1)"),
    ("2^{150}", "2^{149}+2^{149}"),
    ("(x+1)^{40}", "(1+x)^{40}"),
    (r"\frac{180}{\pi}", r"\frac{180}{\pi}^\circ"),
    ("0", r"0^\circ"),
    (MATRIX, r"\left(\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right)"),
    (MATRIX, r"\left[\begin{matrix} 1 & 2 \\ 3 & 4 \end{matrix}\right]"),
    ("6", r"\gcd(12,18)"),
    ("36", r"\lcm(12,18)"),
    (r"\frac{10}{3}", r"\frac{10}{3}\approx3.33"),
    ("|7+b|", "|-(7+b)|"),
    ("a^2+|a|", "|a|+a^2"),
    ("|2a|", "2|a|"),
    ("|a|b", "b|a|"),
    (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}"),
    (r"\lfloor n/2\rfloor", r"\lfloor \frac{n}{2}\rfloor"),
    ("120", r"\prod_{k=1}^5k"),
    ("z^2=3+4i", "2z^2=6+8i"),
    ("x^2+y^2=4", "4=y^2+x^2"),
    ("y=2x+1", "2x-y+1=0"),
    (r"\frac{1}{2}x", r"{x}\frac{1}{2}"),
    (r"\sqrt[3]{2}5", r"5\sqrt[3]{2}"),
    ("2^{3}5", "40"),
    (r"\frac{x^3}{d}", r"\frac{x^3}{d}"),
    ("14.29", "100/7=14.29"),
    ("16/3", r"5\frac{1}{3}"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\{5\}", "5"),
    ("-20", r"-\$20"),
    ("-20", r"-\$20.00"),
    ("-0.50", r"-\$0.50"),
    ("20", r"20\text{ ways.}"),
    ("20", r"20\text{ cm.}"),
    (r"240\text{ ways.}", "240"),
    ("18", r"18\text{ sq. units}"),
    ("{4:30p.m.}", r"\text{4:30 p.m.}"),
    ("3", r"3 \text{ sec}"),
    ("x^2+x+1", "x+x^2+1"),
    ("(x-1)(x-2)", "x^2-3x+2"),
    ("5", "The answer is $5$."),
    ("5", "Step 2: the answer is $5$."),
    ("-5", "x = -5."),
    ("0.5", r"The answer is \frac{1}{2}."),
    ("18", r"so the result is \(18\)."),
    ("18", r"Thus: \[18\]."),
]


@pytest.mark.parametrize(("truth", "answer"), WRONG)
def test_a_wrong_answer_is_not_rewarded(truth, answer):
    assert score(truth, answer) == 0


@pytest.mark.parametrize(("truth", "answer"), RIGHT)
def test_a_right_answer_of_such_a_form_is(truth, answer):
    assert score(truth, answer) == 1


BOMBS = [
    r"\sin((10^{1000})^{1000})",
    r"\sin(\exp(\exp(20)))",
    r"\exp(i(10^{1000})^{1000})",
    r"\sin\sqrt[10^{-7}]{10}",
    r"\cos(\exp(10^{6}))",
    "1" * 200 + "." + "3" * 1000 + " cm",
    "0." + "3" * 1900 + " cm",
    r"(±1±1±1±1,\{" * 5 + "5" + r"\})" * 5,  # each set was read again with each choice of signs
]


@pytest.mark.parametrize("answer", BOMBS, ids=lambda text: text[:24])
def test_reading_is_bounded_in_this_process(answer):
    """These took from 10 seconds to for ever, with the interpreter's lock held."""
    begin = time.process_time()
    Equivalence().read(answer)
    assert time.process_time() - begin < 2


def test_boxes_within_a_box_of_blanks_are_looked_for_in_linear_time():
    begin = time.process_time()
    blanks = " " * 50_000
    assert extract_answer(rf"\boxed{{{blanks}" + r"\boxed{5}" * 20_000 + "}")
    assert time.process_time() - begin < 2


def test_ordinary_arguments_still_have_a_value():
    for truth, answer in ((r"\sin(10^6)", r"\sin(1000000)"), ("e^{9}", r"\exp(9)")):
        assert score(truth, answer) == 1


def test_the_comparisons_of_an_answer_have_one_budget(monkeypatch):
    """A list has as many as pairs of parts, of which each would take its own limit."""
    asked = []

    def slow(pool, gold, answer):
        asked.append(answer)
        return {"equal": False, "parsed": True, "seconds": 3.0}

    monkeypatch.setattr(judge_equivalence, "reply_of", slow)
    parts = [rf"\int_0^1 x^{{{k}x}} dx" for k in range(2, 8)]
    result = verdict(", ".join(parts), [", ".join(f"{p}+1" for p in parts)], Equivalence(budget=10))
    assert not result.correct and len(asked) == 4


def test_a_long_answer_is_not_kept():
    from recipe.judge.reader import _read

    before = _read.cache_info().currsize
    Equivalence().read(", ".join(map(str, range(10**8, 10**8 + 50))))
    assert _read.cache_info().currsize == before


def test_the_last_outermost_complete_box_counts():
    assert extract_answer(r"\boxed{1} \boxed{2 \boxed{3}} \boxed{\boxed{4}") == "4"
    assert extract_answer(r"\boxed{1} \boxed{2 \boxed{3} + 1} \boxed{") == r"2 \boxed{3} + 1"


@pytest.mark.parametrize(
    ("question", "truth", "answer", "correct"),
    [
        ("Compute $115^2$.", "13225", "115^2", False),
        ("Compute $115^2$.", "13225", "x = 115^{2}", False),
        ("Compute $115^2$.", "13225", "13225", True),
        (r"Find $\cos 120^\circ$.", r"-\frac{1}{2}", r"\cos 120^\circ", False),
        (r"Find $\cos 120^\circ$.", r"-\frac{1}{2}", "-1/2", True),
        (r"Find $\dfrac{7!+8!}{6!+7!}$.", r"\frac{63}{8}", r"\frac{7!+8!}{6!+7!}", False),
        (r"Expand $(x+1) \left(x+2\right)$.", "x^2+3x+2", "(x+1)(x+2)", False),
        (r"Which is larger, $2^{30}$ or $3^{20}$?", "3^{20}", "3^20", True),
        ("Is 1/2 or 1/3 the answer?", r"\frac12", "1/2", True),
        ("He has 5 apples and -3 pears.", "-3", "-3", True),
        ("Simplify 4+4 and 2^3.", "8", "2^{2}+4", True),  # another way is a closed form
        (None, "13225", "115^2", True),
    ],
)
def test_a_calculation_of_the_question_is_no_answer_to_it(question, truth, answer, correct):
    row = {"extra_info": {"question": question}}
    text = rf"\boxed{{{answer}}}"
    assert compute_score("test", text, truth, **row)["acc"] is correct
    grading = Grading()
    judged = judge_prompts([[text]], [truth], grading, grading.equivalence(), [row])
    assert judged[0].correct == [correct] and judged[0].majority_correct is correct
