"""Why an answer is as it is: the plan, its reason, and what was estimated against what happened."""

from typing import Any

from retrieval.composing import Composed
from retrieval.plan import CERTIFIED_MISS, Strategy
from retrieval.search import Answer
from retrieval.values import Tier


def explained(answer: Answer | Composed) -> dict[str, Any]:
    """Everything that is known of how an answer was found, as JSON can hold it."""
    plan = composed(answer) if isinstance(answer, Composed) else planned(answer)
    return plan if answer.group_by is None else plan | {"group_by": answer.group_by}


def composed(answer: Composed) -> dict[str, Any]:
    """Of a question to several indexes."""
    if answer.scanned:
        why = f"all {answer.candidates:,} faces with every vector were scored"
    else:
        why = (
            f"no face beyond the {answer.candidates:,} that the indexes named can reach the last "
            f"hit, after {answer.rounds} {'round' if answer.rounds == 1 else 'rounds'}"
        )
    return {
        "strategy": "compose",
        "why": why,
        "tier": str(answer.tier),
        "survivors": answer.survivors,
        "rounds": answer.rounds,
        "candidates": answer.candidates,
        "weights": list(answer.weights),
        "parts": [planned(one) for one in answer.answers],
    }


def planned(answer: Answer) -> dict[str, Any]:
    """Of a question to one index."""
    chosen, work = answer.plan, answer.work
    actual_us = 1e3 * answer.timings.search_ms
    return {
        "strategy": str(chosen.strategy),
        "why": chosen.why,
        "tier": str(answer.tier),
        "promise": promise(answer),
        "rows": chosen.statistics.rows,
        "survivors": answer.survivors,
        "share": answer.survivors / max(chosen.statistics.rows, 1),
        "queries": chosen.statistics.queries,
        "lists": {
            "all": chosen.statistics.lists, "ranked": work.lists_held, "touched": work.lists
        },
        "rows_scored": {"by_code": work.by_code, "exactly": work.exactly},
        "microseconds": {
            "estimated": round(chosen.cost_us, 1),
            "actual": round(actual_us, 1),
            "ways": {str(way): round(cost, 1) for way, cost in chosen.costs_us},
        },
        "timings": answer.timings._asdict(),
    }  # fmt: skip


def promise(answer: Answer) -> str:
    """What the tier says of this answer, with its numbers."""
    chosen = answer.plan
    if answer.tier is Tier.EXACT:
        return "no neighbour is missed"
    if answer.tier is Tier.CERTIFIED:
        rule = chosen.statistics.rule
        pairs = rule.measured.pairs if rule else 0
        return (
            f"a neighbour is missed with a chance of at most {CERTIFIED_MISS:g}: estimates may be "
            f"{chosen.errors:.2f} a|q| too low, a tail counted over {pairs:,} pairs"
        )
    if chosen.strategy is Strategy.PROBE:
        return (
            f"{answer.recall:g} of the neighbours in the mean: lists are left out once they should "
            f"hold {chosen.missed:g} of what was seen"
        )
    return f"{answer.recall:g} of the neighbours in the mean: every survivor's code is looked at"


def text_of(values: dict[str, Any]) -> str:
    """The same for people."""
    if "group_by" in values:
        by = values["group_by"]
        told = f"grouped by {by}: the best face of each; a face without a {by} stands alone"
        plan = {name: value for name, value in values.items() if name != "group_by"}
        return f"{text_of(plan)}\n{told}"
    if "parts" in values:
        shares = ", ".join(f"{weight:.3f}" for weight in values["weights"])
        own = f"compose: {values['why']}\ntier {values['tier']}; weights of cosines: {shares}"
        return "\n\n".join([own, *map(text_of, values["parts"])])
    microseconds, lists, scored = values["microseconds"], values["lists"], values["rows_scored"]
    ways = ", ".join(f"{way} {cost:,.0f}" for way, cost in microseconds["ways"].items())
    steps = ", ".join(f"{name[:-3]} {value:.2f}" for name, value in values["timings"].items())
    return "\n".join(
        [
            f"{values['strategy']}: {values['why']}",
            f"tier {values['tier']}: {values['promise']}",
            f"rows scored: {scored['by_code']:,} by code, {scored['exactly']:,} exactly",
            f"lists touched: {lists['touched']:,} of {lists['ranked']:,} that hold survivors",
            f"microseconds: {microseconds['actual']:,.0f}; estimated for each way: {ways}",
            f"milliseconds by step: {steps}",
        ]
    )
