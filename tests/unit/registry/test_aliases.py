"""Aliases: promote, roll back, unknown and damaged names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from finsent.registry.gate import Clearance
from finsent.registry.registry import Registry
from tests.unit.registry.model_dirs import Publish, refusal


def test_promote_and_rollback_walk_along_the_history(registry: Registry, publish: Publish) -> None:
    first, second, third = (publish(seed).version for seed in range(3))
    for version in (first, second, second, third):
        assert registry.promote(version, "champion").version == version
    registry.promote("champion", "stable")  # an alias may be promoted, too
    assert registry.aliases() == {"champion": third, "stable": third}
    for version in (second, first):
        assert registry.rollback("champion").version == version
        assert registry.get("champion").version == version
    assert "has no earlier version" in refusal(lambda: registry.rollback("champion"))
    assert registry.aliases() == {"champion": first, "stable": third}
    registry.promote(third, "champion")
    assert registry.rollback("champion").version == first


def test_alias_that_moved_since_the_gate_stays(registry: Registry, publish: Publish) -> None:
    """Of two publishers that were judged against one champion, one replaces it."""
    first, second, third = (publish(seed).version for seed in range(3))
    registry.promote(first, "champion", Clearance(None))
    text = refusal(lambda: registry.promote(second, "champion", Clearance(None)))
    assert text == (
        f"alias 'champion': moved from no version to {first} after the comparison. Run again."
    )
    registry.promote(second, "champion", Clearance(first))
    text = refusal(lambda: registry.promote(third, "champion", Clearance(first)))
    assert f"moved from {first} to {second} after the comparison. Run again." in text
    registry.promote(second, "champion", Clearance(first))  # of the same model
    assert registry.aliases() == {"champion": second}


def test_no_version_before_is_lost_when_many_promote(registry: Registry, publish: Publish) -> None:
    versions = [publish(seed).version for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda version: registry.promote(version, "champion"), versions):
            pass
    served_versions = [registry.get("champion").version]
    served_versions += [registry.rollback("champion").version for _ in versions[1:]]
    assert sorted(served_versions) == sorted(versions)


def test_rollback_to_a_damaged_version_moves_nothing(registry: Registry, publish: Publish) -> None:
    first, second = publish(0), publish(1)
    for version in (first, second):
        registry.promote(version.version, "champion")
    (first.path / "config.json").unlink()
    assert "config.json is missing" in refusal(lambda: registry.rollback("champion"))
    assert registry.get("champion").version == second.version


def test_unknown_names_list_the_known_ones(registry: Registry, publish: Publish) -> None:
    assert "known: none, publish one first" in refusal(lambda: registry.get("champion"))
    version = publish(0).version
    registry.promote(version, "champion")
    for reference in ("champoin", "0123456789ab", "../aliases", f"../versions/{version}", ""):
        text = refusal(lambda wanted=reference: registry.get(wanted))  # type: ignore[misc]
        assert text.startswith(f"model {reference!r}: no such alias or version")
        assert f"known: champion, {version}" in text
    assert "alias 'chalenger': unknown (known: champion)" in refusal(
        lambda: registry.rollback("chalenger")
    )
    assert "no such alias" in refusal(lambda: registry.promote("nobody", "stable"))
    assert registry.aliases() == {"champion": version}


@pytest.mark.parametrize("alias", ["Champion", "", "a b", "../up", "1st", "a.b", "a\n", "x" * 64])
def test_alias_that_is_no_name_is_refused(registry: Registry, publish: Publish, alias: str) -> None:
    version = publish(0).version
    text = refusal(lambda: registry.promote(version, alias))
    assert text.startswith(
        f"alias {alias!r}: not a valid alias. Write small letters, digits, - or _"
    )
    assert registry.aliases() == {}


def test_alias_never_shadows_a_version(registry: Registry, publish: Publish) -> None:
    """`promote champion ID`, with the names the wrong way round, must not redirect the id."""
    versions = [publish(seed).version for seed in range(12)]
    letter = next(v for v in versions[1:] if v[0].isalpha())
    registry.promote(versions[0], "champion")
    assert letter in refusal(lambda: registry.promote("champion", letter))
    assert registry.get(letter).version == letter


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"version": null}'])
def test_damaged_alias_is_named(registry: Registry, publish: Publish, content: str) -> None:
    registry.promote(publish(0).version, "champion")
    path = registry.root / "aliases" / "champion.json"
    path.write_text(content)
    assert str(path) in refusal(lambda: registry.get("champion"))
