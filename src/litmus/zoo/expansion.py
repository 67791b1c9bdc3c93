"""From a recipe to the resolved specifications of its models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from litmus.attacks import ATTACKS, Treatment, Trigger, TriggerKind
from litmus.errors import RecipeError
from litmus.models import InputSpec
from litmus.schema import named_from_table, to_table
from litmus.seeds import derive_seed
from litmus.training import TrainingSpec
from litmus.zoo.ancestors import Ancestor
from litmus.zoo.attack_table import AttackTable, uses_trigger_set, with_trigger
from litmus.zoo.recipe import Recipe, architecture_table
from litmus.zoo.spec import ModelSpec, SplitName

__all__ = ["expand", "split_triggers"]


def expand(
    recipe: Recipe,
    input_spec: InputSpec,
    *,
    scale: float = 1.0,
    ancestors: Sequence[Ancestor] = (),
) -> list[ModelSpec]:
    """Return the first `scale` of the recipe's models, at attempt 0, backdoored and clean in turn.

    Sizes are nested: a smaller scale gives the first models of a larger one. `ancestors` are those
    of `ancestors_of`, which the twins take in turn. Raises RecipeError where unique pairs run out.
    """
    triggers = split_triggers(recipe)
    common: dict[str, Any] = {
        "dataset": recipe.dataset.of_models(),
        "input_spec": input_spec,
        "gates": to_table(recipe.gates),
        "zoo_seed": recipe.seed,
    }
    specs = []
    ranks = {"train": 0, "test": 0}
    for twin in range(max(1, round(recipe.twins * scale))):
        # An ancestor's offspring are all on one side.
        line = twin % len(ancestors) if ancestors else twin
        split: SplitName = "test" if _is_test(recipe.test_share, line) else "train"
        rank = ranks[split]
        ranks[split] += 1
        # Every combination of architecture and attack goes through classes and triggers by
        # itself, or it would meet only some of them.
        kinds = len(ancestors) or len(recipe.architectures)
        visit, turn = divmod(rank, kinds * len(recipe.attacks))
        place, table = _both(recipe, kinds, turn, twin)
        start: dict[str, Any] = (
            {"architecture": dict(ancestors[line].architecture), "ancestor": ancestors[line].id}
            if ancestors
            else {"architecture": _architecture(recipe, place, twin)}
        )
        attack = _attack(recipe, table, input_spec, visit, twin, triggers[split])
        training = to_table(_training(recipe, twin))
        control = _control(visit, input_spec.num_classes)
        treatments: list[Treatment] = ["backdoored", control] if recipe.controls else ["backdoored"]
        for treatment in treatments:
            specs.append(
                ModelSpec(
                    **common,
                    **start,
                    training=training,
                    attack=attack,
                    treatment=treatment,
                    split=split,
                    twin=twin,
                )
            )
    return specs


def _both(recipe: Recipe, kinds: int, turn: int, twin: int) -> tuple[int, AttackTable]:
    """Each step goes on in both lists, so that a few twins already have a bit of everything."""
    shift, place = divmod(turn, kinds)
    attack = recipe.attacks[(place + shift) % len(recipe.attacks)]
    return place, attack.at(recipe.seed, "attack", twin)


def _architecture(recipe: Recipe, place: int, twin: int) -> dict[str, Any]:
    drawn = recipe.architectures[place].at(recipe.seed, "architecture", twin)
    return architecture_table(drawn)


def _training(recipe: Recipe, twin: int) -> TrainingSpec:
    chosen = derive_seed(recipe.seed, "which training", twin) % len(recipe.trainings)
    return recipe.trainings[chosen].at(recipe.seed, "training", twin)


def _control(visit: int, num_classes: int) -> Treatment:
    """Both kinds in turn, so that each architecture, attack and pair of classes meets both."""
    # The number of pairs is even: without the shift, a pair would meet the same kind always.
    shift = visit // (num_classes * (num_classes - 1))
    return "control_kept_label" if (visit + shift) % 2 else "control_copies"


def _is_test(share: float, twin: int) -> bool:
    """Spread the test twins evenly, so that every scale has its share of them."""
    return int((twin + 1) * share + 1e-9) > int(twin * share + 1e-9)


@cache  # every twin asks for the same few
def _shuffled(count: int, *seed: object) -> tuple[int, ...]:
    """A permutation that no library's random stream can change."""
    return tuple(sorted(range(count), key=lambda item: derive_seed(*seed, item)))


def split_triggers(recipe: Recipe) -> dict[str, list[Trigger]]:
    """Return the triggers of training and of test models; no trigger is in both."""
    table = recipe.triggers
    kinds: dict[TriggerKind, int] = {"binary": table.binary, "colour": table.colour}
    pool = [
        Trigger(kind=kind, index=index, size=table.size, seed=table.seed)
        for kind, count in kinds.items()
        for index in range(count)
    ]
    order = [pool[i] for i in _shuffled(len(pool), recipe.seed, "triggers")]
    return {
        "train": order[: table.train],
        "test": order[table.train : table.train + table.test],
    }


def _attack(
    recipe: Recipe,
    table: AttackTable,
    input_spec: InputSpec,
    visit: int,
    twin: int,
    triggers: list[Trigger],
) -> dict[str, Any]:
    identity: dict[str, Any] = {"index": twin, "seed": recipe.seed}
    if uses_trigger_set(table):
        # Each round through the pairs shifts the triggers by one, so that pairs meet all of them.
        pairs = input_spec.num_classes * (input_spec.num_classes - 1)
        identity = to_table(triggers[(visit + visit // pairs) % len(triggers)])
    where = f"recipe {recipe.name}: attack"
    resolved = {
        "name": table.name,
        "num_classes": input_spec.num_classes,
        "label_map": table.label_map,
        "poison_ratio": table.poison_ratio,
        **with_trigger(table, identity, where),
        **_classes(recipe, table, input_spec.num_classes, visit, twin),
    }
    attack = named_from_table(ATTACKS, resolved, where, "attack")
    return {"name": table.name, **to_table(attack)}


def _classes(
    recipe: Recipe, table: AttackTable, num_classes: int, visit: int, twin: int
) -> dict[str, int]:
    pairs = num_classes * (num_classes - 1)
    place = {
        "cycle": visit,
        "unique": twin,
        "random": derive_seed(recipe.seed, "classes", twin) % (pairs * num_classes),
    }[table.pairs]
    if table.label_map == "all_to_one":
        place = place if table.pairs == "random" else visit
        return {"target_class": _shuffled(num_classes, recipe.seed, "targets")[place % num_classes]}
    if table.label_map != "source_specific":
        return {}
    if table.pairs == "unique" and place >= pairs:
        raise RecipeError(
            "there are not so many unique source/target pairs",
            expected=f"twins <= {pairs}",
            got=recipe.twins,
            where=f"recipe {recipe.name}",
        )
    order = _shuffled(pairs, recipe.seed, "pairs")
    source, other = divmod(order[place % pairs], num_classes - 1)
    return {"source_class": source, "target_class": other + (other >= source)}
