"""Family cards: what is to be solved. One `envs/<Name>.toml` a task family."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmrlad_bench.cards.reading import CardError, CardModel, digest, nearest, read_toml, register_folder, validate

NAMESPACE = "DMRLAD"
UNHASHED = {"description", "source", "reference"}
Task = tuple[float, ...]


class Goal(CardModel):
    """The kind of goal and the range that tasks were drawn from (m/s for velocities, rad on the circle for planar goals)."""

    kind: Literal["velocity", "planar_goal"]
    low: float
    high: float
    radius: float | None = Field(default=None, gt=0, description="planar goals: distance of the goals from the origin, m")


class Reward(CardModel):
    """Reward terms; `err` is the distance between what was done and what was asked."""

    kind: Literal["sparse", "dense"]
    radius: float = Field(gt=0, description="the sparse reward's and the success rule's radius")
    inside: float = Field(description="sparse: reward inside the radius is `inside - err`")
    outside: float = Field(description="sparse: reward outside the radius, the same number for every task")
    sparse_control_cost: float = Field(default=0.0, ge=0, description="weight of sum(action^2) in the sparse reward")
    dense_control_cost: float = Field(default=0.0, ge=0, description="weight of sum(action^2) in the dense reward")


class Tasks(CardModel):
    """The frozen task lists: explicit numbers, disjoint."""

    train: tuple[Task, ...] = Field(min_length=1)
    test: tuple[Task, ...] = Field(min_length=1)
    ood: tuple[Task, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> Tasks:
        seen: dict[Task, str] = {}
        for split in ("train", "test", "ood"):
            for task in getattr(self, split):
                if task in seen:
                    raise ValueError(f"task {list(task)} of {split!r} is also in {seen[task]!r}; splits must be disjoint, tasks distinct")
                seen[task] = split
        if len({len(task) for task in seen}) > 1:
            raise ValueError("all tasks must have the same number of entries")
        return self


class Reference(CardModel):
    """Measured mean return of one episode on the test tasks, the ends of the normalised score."""

    random: float
    oracle: float

    @model_validator(mode="after")
    def _ordered(self) -> Reference:
        if self.oracle <= self.random:
            raise ValueError(f"oracle must exceed random, got {self.oracle} and {self.random}")
        return self


class FamilyCard(CardModel):
    """One task family. `envs/<name>.toml` is the record; `dmrlad_bench.envs` turns it into environments."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$")
    version: int = Field(ge=0)
    description: str
    source: str
    body: str
    horizon: int = Field(ge=1, description="steps until truncation")
    observation_extras: tuple[Literal["x_position"], ...] = ()
    goal: Goal
    reward: Reward
    success: Literal["any", "final", "fraction"]
    reconstruction_dims: int = Field(ge=0, description="how many leading observation entries task inference reconstructs")
    episodes_per_trial: Annotated[int, Field(ge=1)] = 1
    tasks: Tasks
    reference: Reference | None = None

    @property
    def id(self) -> str:
        """Gymnasium id, as `DMRLAD/CheetahVelSparse-v0`."""
        return f"{NAMESPACE}/{self.name}-v{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of everything on the card that changes results."""
        return digest(self, exclude=UNHASHED)


@lru_cache(maxsize=1)
def family_names() -> tuple[str, ...]:
    """Names of the published families, sorted (`CheetahVelSparse`, ...)."""
    return tuple(sorted(path.stem for path in register_folder("envs").glob("*.toml")))


def load_family(name: str | Path) -> FamilyCard:
    """Read a family card by Gymnasium id, by bare name or by the path of a TOML file.

    Raises:
        CardError: unknown name, unreadable file or bad content.
    """
    text = str(name)
    if text.endswith(".toml"):
        return read_family(Path(text))
    bare = text.removeprefix(f"{NAMESPACE}/")
    stem, _, version = bare.partition("-v")
    names = family_names()
    if stem not in names:
        known = ", ".join(f"{NAMESPACE}/{entry}-v{read_family(_published(entry)).version}" for entry in names)
        raise CardError(f"unknown family {text!r}{nearest(stem, names)}; accepted: {known}, or the path of a TOML file")
    card = read_family(_published(stem))
    if version and version != str(card.version):
        raise CardError(f"unknown version of family {text!r}; accepted: {card.id}")
    return card


def _published(name: str) -> Path:
    return register_folder("envs") / f"{name}.toml"


@cache
def _read_cached(path: Path, modified: int) -> FamilyCard:
    return validate(FamilyCard, read_toml(path), str(path))


def read_family(path: Path) -> FamilyCard:
    """Read and validate one family card file; raises `CardError`."""
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from None
    return _read_cached(path, modified)
