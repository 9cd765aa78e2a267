"""The rules by which each claim of the paper is judged.

*Written on 23 November 2026, before the two networks of 60,000 meta-updates at 28x28 were trained.
On 25 November, with their results known, came "no such effect" with its margins, the upper bound of
(b), at least 5 seeds instead of 3, and what is said below of skewed, collapsed and unshared seeds
and of looks; on 26 November, that a look is that of the seeds trained, collapsed ones included. So
the rules were written beforehand not for those two, but for the eight seeds of each method that
are to decide and for the networks at 84x84 of 20,000 and 60,000 meta-updates, of which no feature
had been evaluated; all but three corrections of 27 November, with all results known, which change
no verdict: a verdict's p and its correction are its own test's and not the smallest of three, a
look needs its seeds of each method, and a t-test that finds the opposite does not say yes.*

| claim | statement | quantity | claim holds where it is | margin |
| --- | --- | --- | --- | --- |
| a | every convolution's mean learned rate is negative and the linear layer's is positive | mean \
rate of each layer at the last update, weights and biases | below 0 for all but the last (conv1 to \
conv4 of the paper's network), above 0 for the last (logits) | – |
| b | features before adaptation classify about as well as the adapted model | prototype accuracy \
before adaptation minus ordinary accuracy | between -2 and +2 points for both methods | – |
| c | Meta-SGD's features before adaptation are better than MAML's | prototype accuracy before \
adaptation, Meta-SGD minus MAML | above 0 | 0.5 |
| d | both methods are worse on-task | accuracy on a task after adapting to it, minus before | \
below 0 for both methods | 0.1 |
| e | off-task MAML gets worse and Meta-SGD better | accuracy on a second task after adapting to \
the first, minus before | below 0 for MAML and above 0 for Meta-SGD | 0.069 and 0.047 |
| f | the difference in (e) is significant | the quantity of (e), Meta-SGD minus MAML | \
above 0 | 0.116 |

**Verdicts.** A claim has k parts, one for each inequality. *Reproduced*: the 95 % interval of every
part lies wholly on the claim's side. *Contradicted*: the interval of at least one part lies wholly
on the other side, at confidence 1 - 5 %/k. *No such effect*: neither, and at least one part's
effect lies between minus and plus its margin, by two one-sided tests at 5 %/k each. Otherwise
*undecided*. So the probability of a wrong definite verdict is at most 5 % for each claim, as far as
intervals hold what they promise (below). All parts must pass (an intersection-union test, which
needs no correction) or any may fail (a union, corrected by Bonferroni); and where an effect is at
least as large as its margin, *no such effect* and *contradicted* both need the same bound to fall
short of the margin, so the two share one 5 %.

**Margins**, in percentage points. (e) and (f): half of the paper's effect, which is -0.3 % of 46 %
for MAML, +0.2 % of 47 % for Meta-SGD, and the sum of their sizes. (The paper does not say of what
these are percent; were they percentage points, the margins would be twice as wide.) (c): half of
the point between the 46 and 47 % that the paper gives for its two models; figure 7 has no numbers.
(d): section 5.3 says that both get worse, the abstract that MAML gets better; neither gives a size.
Chosen is 0.1, between the two sizes that it calls an effect off-task: a loss on-task
that is smaller than what counts as a gain off-task would not be called "worse". (b) says itself
that two things are alike, and (a) is of signs alone: neither has a margin.

**Columns.** *networks*: what can be said of these very networks, from t intervals over at least 30
episodes. The networks' rates are known exactly: (a) is reproduced if every network has all five
signs, contradicted if none has, otherwise undecided. *methods*: what can be said of the
algorithms, from intervals over seeds; always undecided with fewer than 5 seeds of a method, and,
but for (a), with fewer than 30 episodes.
Imported networks of unknown seed (a negative one stands for it) are left out. For (a)
the seeds alone vary; for the others also the spread over episodes enters (`intervals.over_seeds`).
A bound lies as far out as the further of Student's t and Hall's (1992) correction of it for the
skewness of the seeds. Where the two methods have the same seeds, collapsed ones left out, their
difference is taken in pairs; otherwise by Welch, over all seeds. (A seed that is shared fixes the
first weights and the order of tasks, and hardly makes results alike.)

**Skewed seeds.** With Student's t alone the promise of 5 % becomes 9 to 12 % for seeds distributed
exponentially and 15 to 18 % for lognormal ones. With Hall's correction, by the sample skewness
without bias, signs are wrong for 6 to 7 % of tables with 5 to 12 exponential seeds and 10 % with
lognormal ones, and *no such effect*, whose one bound lies on the side of the skewness, for up to 8
and 13 % where the effect is just as large as the margin. The studentised bootstrap does no better
and is erratic with few seeds; Student's t on trimmed means and the sign test miss more the more
seeds there are, being about another number than the mean. With 3 or 4 seeds no interval both keeps
the promise and decides anything, hence 5. Differences between two methods that are skewed alike are
not skewed, and err less than promised. `error_rates` has every case, and notebook 4 shows it.

**Collapsed trainings.** A training is collapsed if the accuracy of its adapted models, on average
over episodes, is below the median of its method's trainings by more than 10 points and by more than
5 robust standard deviations (1.4826 times the median distance from the median); at least 3
trainings of the method are needed to tell. Collapsed trainings are named and left out before
anything is averaged, their rates too: verdicts are about trainings that succeed. Kept, one
collapse in ten trainings would make a quarter of intervals miss.

**Looks.** Seeds are planned before they are trained. Adding seeds until something is definite
gives far more than 5 % of wrong verdicts. Where a second look is planned, after 8 and after 12
seeds, both are made at the levels of O'Brien and Fleming (1979) (`looks.levels`), which share the
5 %; at any other number of seeds of either method the methods are undecided. The seeds of a look
are those trained: a collapsed training counts, so that it does not void the plan. The verdict, at
the look's level, is by those that are left, at least 5, and says how many they are. The looks are a
parameter of notebook 4, and it says when it looked.

**p**: the smallest error rate at which the rule still gives the verdict, so that p is at
most the verdict's level (5 %, or that of a planned look) exactly where the verdict is definite.
There is none with too few seeds or episodes, or where no look is planned. There are three:
twice the one-sided p-value against the claim's being false (the largest over its parts), for
*reproduced*; twice that against its being true (k times the smallest over its parts, towards the
other side), for *contradicted*; and that against an effect (k times the smallest over its parts of
the larger of two one-sided p-values), for *no such effect*. A definite verdict is shown with its
own, an undecided one with the smallest.

**Holm**: a verdict is at most 5 % likely to be wrong *for each claim*; among six claims one wrong
verdict is likelier. The verdicts stay what they are, each at its level, and Holm's correction says
which of them survive together: where the correction of a verdict's own p-value is at most its
level, the probability that any such verdict of the column is wrong is at most 5 %, whatever the
dependence between the claims; over two looks, at most the sum of their levels, 5.9 % after 8 and 12
seeds. What does not survive says so beside its verdict. The family holds every p-value of the
column, two for each claim and a third where it has a margin, each as the one-sided value that it
is, not doubled; what is not measured, or not tested, counts as 1.
(a) of these networks has no sampling error, therefore no p, and no place in its column's family.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from negmeta_utils.evidence.intervals import Estimate
from negmeta_utils.evidence.quantities import DIFFERENCE, MAML, META_SGD

RULES = __doc__

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NO_EFFECT = "no such effect"
ERROR_RATE = 0.05
MIN_EPISODES = 30
MIN_SEEDS = 5

# claim: statement and the paper's number
CLAIMS = {
    "a": (
        "every convolution's mean learned rate is negative and the linear layer's is positive",
        "conv1 -0.006, conv2 -0.004, conv3 -0.013, conv4 -0.018, logits +0.043",
    ),
    "b": (
        "features before adaptation classify about as well as the adapted model",
        "nearly as good (Meta-SGD, 47 %), slightly better (MAML, 46 %)",
    ),
    "c": ("Meta-SGD's features before adaptation are better than MAML's", "better (figure 7)"),
    "d": (
        "both methods are worse on-task",
        "both worse (section 5.3); by the abstract MAML better",
    ),
    "e": (
        "off-task MAML gets worse and Meta-SGD better",
        "maml -0.3 %, meta-sgd +0.2 % (of what is not said)",
    ),
    "f": ("the difference in (e) is significant", "p = 0.00044"),
}


class Part(NamedTuple):
    """One inequality of a claim: the quantity lies above (side 1) or below (-1) the bound.

    margin: the largest effect that counts as no effect; None where the claim has no
    such size. Bound and margin are in percentage points.
    """

    method: str
    quantity: str
    side: int
    bound: float = 0.0
    margin: float | None = None


PARTS = {
    "b": [
        Part(method, "without head", side, -2.0 * side)
        for method in (MAML, META_SGD)
        for side in (1, -1)
    ],
    "c": [Part(DIFFERENCE, "pre-adaptation", 1, margin=0.5)],
    "d": [Part(method, "on-task change", -1, margin=0.1) for method in (MAML, META_SGD)],
    "e": [
        Part(MAML, "off-task change", -1, margin=0.069),
        Part(META_SGD, "off-task change", 1, margin=0.047),
    ],
    "f": [Part(DIFFERENCE, "off-task change", 1, margin=0.116)],
}


def parts_of_rates(layers: Iterable[str]) -> list[Part]:
    """Claim (a) of these layers, from the image to the classes: the last is the linear one."""
    *body, head = layers
    return [*(Part(layer, "mean rate", -1) for layer in body), Part(head, "mean rate", 1)]


class Judgement(NamedTuple):
    """A verdict, its level, and p-values against the claim's being false and its being true, both
    one-sided, and against an effect as large as the margin (NaN without one)."""

    verdict: str
    p_false: float = np.nan
    p_true: float = np.nan
    p_effect: float = np.nan
    level: float = ERROR_RATE

    @property
    def p(self) -> float:
        """The smallest error rate at which the verdict would be definite; NaN where not tested."""
        return self.own([min(1, 2 * self.p_false), min(1, 2 * self.p_true), self.p_effect])

    def own(self, p: Sequence[float]) -> float:
        """Of three p-values, in the order of `p_false`, `p_true` and `p_effect`, that on which the
        verdict rests; of an undecided one the smallest; NaN where not tested."""
        if np.isnan(self.p_false):
            return np.nan
        rests_on = [REPRODUCED, CONTRADICTED, NO_EFFECT]
        if self.verdict in rests_on:
            return float(p[rests_on.index(self.verdict)])
        return float(np.nanmin(p))


NO_JUDGEMENT = Judgement(UNDECIDED)


def judge(estimates: list[Estimate], parts: list[Part], level: float = ERROR_RATE) -> Judgement:
    """The rule for a claim, from the estimates of its parts.

    level: the probability that a definite verdict may be wrong. An estimate of unknown error, as of
    a single value, never decides.
    """
    pairs = list(zip(estimates, parts, strict=True))
    on_side = [_p_beyond(of, part.side, part.bound) for of, part in pairs]
    opposite = [_p_beyond(of, -part.side, part.bound) for of, part in pairs]
    if np.isnan(on_side).any():
        return NO_JUDGEMENT
    margins = [of.p_outside(part.margin) for of, part in pairs if part.margin is not None]
    p_false, p_true = max(on_side), min(1, len(parts) * min(opposite))
    p_effect = min(1, len(parts) * min(margins)) if margins else np.nan
    return Judgement(decide(estimates, parts, level), p_false, p_true, p_effect, level)


def decide(estimates: list[Estimate], parts: list[Part], level: float = ERROR_RATE) -> str:
    """The verdict alone, by intervals."""
    k, pairs = len(parts), list(zip(estimates, parts, strict=True))
    if all(_beyond(of, level, part.side, part.bound) for of, part in pairs):
        return REPRODUCED
    if any(_beyond(of, level / k, -part.side, part.bound) for of, part in pairs):
        return CONTRADICTED
    return NO_EFFECT if without_effect(estimates, parts, level) else UNDECIDED


def _beyond(of: Estimate, level: float, side: int, bound: float) -> bool:
    interval = of.interval(1 - level)
    return interval.low > bound if side > 0 else interval.high < bound


def _p_beyond(of: Estimate, side: int, bound: float) -> float:
    return of.p_above(bound) if side > 0 else of.p_below(bound)


def without_effect(estimates: list[Estimate], parts: list[Part], level: float) -> list[str]:
    """The methods whose part of a claim lies within its margin: two one-sided tests at level/k."""
    found = []
    for of, part in zip(estimates, parts, strict=True):
        interval = of.interval(1 - 2 * level / len(parts))
        if part.margin is not None and -part.margin < interval.low <= interval.high < part.margin:
            found.append(part.method)
    return found
