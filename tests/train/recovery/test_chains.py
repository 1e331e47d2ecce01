"""Chains of recovery steps as they are written."""

import pytest

from cutback.errors import UnknownName, UserMistake
from cutback.train.recovery import (
    BatchNormStatistics,
    Distill,
    Finetune,
    LeastSquares,
    Repair,
    Training,
    parse_recovery,
    recovery_steps,
)


def test_a_chain_is_read_in_order_with_epochs_and_settings() -> None:
    assert parse_recovery("bn, least-squares:ridge=1e-3:positions=9,distill:20:temperature=2,finetune:10") == (
        BatchNormStatistics(),
        LeastSquares(ridge=1e-3, positions=9),
        Distill(epochs=20, temperature=2.0),
        Finetune(epochs=10),
    )
    assert parse_recovery("none") == parse_recovery(" ") == ()


def test_every_step_says_whether_it_trains() -> None:
    assert list(recovery_steps) == ["bn", "distill", "finetune", "least-squares"]
    for name in recovery_steps:
        kind = recovery_steps.get(name)
        assert kind.trains == issubclass(kind, Training) != issubclass(kind, Repair)
        assert kind.__doc__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finetune", "recovery step 'finetune' trains and needs its epochs; write finetune:10"),
        ("finetune:ten", "epochs of recovery step 'finetune' is 'ten'; write a value of type int"),
        ("finetune:-1", "finetune needs epochs >= 0, not -1"),
        ("bn:3", "recovery step 'bn:3' has no setting '3'; it knows none"),
        ("least-squares:rigde=1", "has no setting 'rigde=1'; it knows ridge=..., positions=..., seed=..."),
        ("least-squares:ridge=0", "a ridge above 0"),
        ("distill:5:weight=2", "weight in 0..1"),
        ("distill:5:temperature=0", "a temperature above 0"),
        ("bn,,finetune:1", "no recovery step is called ''"),
        ("lest-squares", "no recovery step is called 'lest-squares'; did you mean 'least-squares'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(UserMistake, match=message) as caught:
        parse_recovery(text)
    assert isinstance(caught.value, UnknownName) == ("is called" in message)
