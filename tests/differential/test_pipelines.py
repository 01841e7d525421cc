"""The pipelines of diffusers that the suite compares."""

from __future__ import annotations

from tests.differential.cases.pipelines import CALLS, PIPELINES


def test_enough_of_the_public_pipelines_are_compared() -> None:
    import diffusers

    public = {
        name
        for name in dir(diffusers)
        if isinstance(each := getattr(diffusers, name), type)
        and issubclass(each, diffusers.DiffusionPipeline)
    }
    assert PIPELINES.keys() <= public
    assert len(PIPELINES) >= 45
    assert CALLS.keys() <= PIPELINES.keys()
