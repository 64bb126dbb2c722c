"""Shadows: how often a challenger agrees with the version that answers, and the verdict on it.

`ROOT/shadow/MODEL--SHADOW.json` has the counts of a pair of versions. Processes add their counts by
conditional writes, so counts survive restarts, and no writer loses those of another.

Without labels, a text with two different labels may be an error of either version. The verdict
"equal within the margin" therefore assumes that the shadow is wrong on each of these texts: the
accuracy cannot differ by more than the share of different labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from finsent.labels import LABELS
from finsent.monitoring.paired import PairedRows, PairedState, PairedTest, PairedVerdict
from finsent.records import Record
from finsent.rollout.state_file import StateFile
from finsent.storage import Location

Confusion = dict[str, dict[str, int]]  # by the label that the client got, then by the shadow's


def no_confusion() -> Confusion:
    """Return counts of zero."""
    return {label: dict.fromkeys(LABELS, 0) for label in LABELS}


def _same_labels(confusion: Confusion) -> int:
    return sum(confusion[label][label] for label in LABELS)


@dataclass
class ShadowCounts:
    """Counts of a shadow's answers compared with those that clients got."""

    texts: int = 0
    difference: float = 0.0  # sum of each text's largest difference of a probability
    seconds: float = 0.0  # of the shadow
    failed: int = 0  # texts that the shadow had no answer for
    uncalibrated: int = 0  # texts of a source for which the shadow has no calibration
    confusion: Confusion = field(default_factory=no_confusion)

    @property
    def same_labels(self) -> int:
        """Number of texts with equal labels."""
        return _same_labels(self.confusion)


class ShadowRecord(Record):
    """The content of `MODEL--SHADOW.json`."""

    schema_version: Literal[1] = 1
    model_version: str
    shadow_version: str
    texts: int = 0
    difference: float = 0.0  # as of `ShadowCounts`
    seconds: float = 0.0
    failed: int = 0
    uncalibrated: int = 0
    confusion: Confusion
    worst_case: PairedState = PairedState()  # the shadow is wrong where the labels differ

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about damaged counts."""
        return "Delete the file: the shadow counts anew."

    @property
    def same_labels(self) -> int:
        """Number of texts with equal labels."""
        return _same_labels(self.confusion)

    def plus(self, counts: ShadowCounts) -> ShadowRecord:
        """Return the record after more counts."""
        # The margin plays no part in the state.
        test = PairedTest(0.5, state=self.worst_case)
        test.update(PairedRows(counts.texts - counts.same_labels, 0, counts.same_labels))
        confusion = {
            label: {other: number + counts.confusion[label][other] for other, number in row.items()}
            for label, row in self.confusion.items()
        }
        return self.replaced(
            texts=self.texts + counts.texts,
            difference=self.difference + counts.difference,
            seconds=self.seconds + counts.seconds,
            failed=self.failed + counts.failed,
            uncalibrated=self.uncalibrated + counts.uncalibrated,
            confusion=confusion,
            worst_case=test.state,
        )

    def verdict(self, margin: float) -> PairedVerdict:
        """Return the verdict on the shadow.

        Args:
            margin: accuracy difference that counts as equal, as a fraction.
        """
        return "equal within the margin" if self.worst_case.lower > -margin else "undecided"


@dataclass(frozen=True)
class Shadows:
    """The counts of shadows below a storage root."""

    root: Location

    def add(self, model_version: str, shadow_version: str, counts: ShadowCounts) -> None:
        """Add counts to a pair of versions.

        Raises:
            InputError: the pair's file is damaged, or cannot be written.
        """

        def plan(old: ShadowRecord | None) -> ShadowRecord:
            new = ShadowRecord(
                model_version=model_version,
                shadow_version=shadow_version,
                confusion=no_confusion(),
            )
            return (old or new).plus(counts)

        self._file(model_version, shadow_version).change(plan)

    def get(self, model_version: str, shadow_version: str) -> ShadowRecord | None:
        """Return the counts of a pair of versions; None: there are none.

        Raises:
            InputError: the pair's file is damaged.
        """
        return self._file(model_version, shadow_version).get()

    def records(self) -> list[ShadowRecord]:
        """Return the counts of all pairs, the latest change last.

        Raises:
            InputError: a file is damaged.
        """
        infos = self._folder.store.list_objects("")
        keys = [
            info.key
            for info in sorted(infos, key=lambda info: info.modified)
            if info.key.endswith(".json") and not info.key.startswith(".")
        ]
        records = [StateFile(self._folder, key, ShadowRecord).get() for key in keys]
        return [record for record in records if record is not None]

    @property
    def _folder(self) -> Location:
        return self.root / "shadow"

    def _file(self, model_version: str, shadow_version: str) -> StateFile[ShadowRecord]:
        return StateFile(self._folder, f"{model_version}--{shadow_version}.json", ShadowRecord)
