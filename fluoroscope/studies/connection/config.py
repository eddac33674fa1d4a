"""A connection study as it is worked on: the spec with what only this machine knows."""

from typing import Literal

from fluoroscope.studies.connection.arms import SLOTS
from fluoroscope.studies.connection.settings import ConnectionSettings


class ConnectionConfig(ConnectionSettings):
    precision: Literal["float32", "bfloat16", "float16"]
    """Of passes in training."""

    @property
    def all_seeds(self) -> list[int]:
        return [self.seed + i for i in range(self.seeds)]

    @property
    def all_sets(self) -> list[str]:
        """Every question set that is asked, in a sweep those of its last phase too."""
        more = self.sweep.final_sets if self.sweep.is_on else []
        return list(dict.fromkeys([*self.data.sets, *more]))

    @property
    def main_arm(self) -> str:
        """What all others are compared with: the first that was asked for."""
        return self.arms[0] if self.arms else SLOTS
