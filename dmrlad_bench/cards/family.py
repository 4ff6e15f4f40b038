"""Family cards: what is to be solved. One `envs/<Name>.toml` a task family."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmrlad_bench.cards.reading import CardError, CardModel, digest, nearest, read_toml, register_folder, unused, validate
from dmrlad_bench.protocol import SPLITS

NAMESPACE = "DMRLAD"
UNHASHED = {"description", "source", "reference"}
# Keys that came after the first published cards, by section ("" is the card itself): see `unused`.
LATER_KEYS: dict[str, tuple[str, ...]] = {
    "": ("terminates", "changes"),
    "goal": ("region", "norm", "variants", "box", "scaled"),
    "reward": ("alive_bonus", "contact_cost", "error_weight"),
    "tasks": ("same_tasks",),
}
LARGEST = 1e6  # of any number on a card: float32 and a simulator still compute with it
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Weight = Annotated[float, Field(ge=0, le=LARGEST)]
Task = tuple[Number, ...]


Quantity = Literal["velocity", "direction", "position", "flip", "jump"]


class Variant(CardModel):
    """One kind of task of a multi-task family; a task is (number of the variant, value)."""

    name: str = Field(pattern=r"^[a-z_]+$")
    base_class: int = Field(ge=0, description="label of the base class, which `inference.class_labels` learns from")
    quantity: Quantity
    low: Number
    high: Number
    radius: Number | None = Field(default=None, description="in place of the reward's radius")
    relative: bool = Field(default=False, description="err is divided by |value|")


class Goal(CardModel):
    """The kind of goal and the range that tasks were drawn from.

    m/s for velocities, m for positions, -1 and 1 for directions, rad on the circle for planar goals; for multi-task families
    the smallest and the largest value of all variants; exponents of the multipliers for physics.
    """

    kind: Literal["velocity", "position", "direction", "planar_goal", "multi_task", "hand_goal", "object_goal", "meta_world", "physics"]
    low: Number
    high: Number
    radius: float | None = Field(default=None, gt=0, le=LARGEST, description="planar goals: distance of the goals from the origin, m")
    region: Literal["circle", "disc"] = Field(default="circle", description="planar goals: on the circle of `radius`, or anywhere in it")
    norm: Literal["l2", "l1"] = Field(default="l2", description="planar goals: Euclidean distance, or the sum over both axes")
    variants: tuple[Variant, ...] = Field(default=(), description="multi-task families: the kinds of tasks")
    box: tuple[tuple[Number, Number], ...] = Field(default=(), description="goals in space: lowest and highest x, y and z, m")
    scaled: tuple[Literal["mass", "inertia", "friction", "damping"], ...] = Field(default=(), description="physics: what tasks multiply")


class Reward(CardModel):
    """Reward terms; `err` is the distance between what was done and what was asked."""

    kind: Literal["sparse", "dense"]
    radius: Number = Field(description="the sparse reward's and the success rule's radius; positive but for directions")
    inside: Number = Field(description="sparse: reward inside the radius is `inside - err`")
    outside: Number = Field(description="sparse: reward outside the radius, the same number for every task")
    sparse_control_cost: Weight = Field(default=0.0, description="weight of sum(action^2) in the sparse reward")
    dense_control_cost: Weight = Field(default=0.0, description="weight of sum(action^2) in the dense reward")
    alive_bonus: Weight = Field(default=0.0, description="added at every step, in both forms")
    contact_cost: Weight = Field(default=0.0, description="weight of sum(clip(contact forces, -1, 1)^2), in both forms")
    error_weight: Weight = Field(default=1.0, description="sparse: reward inside the radius is `inside - error_weight * err`")


def as_learners_see(task: Task) -> tuple[float, ...]:
    """A task to six digits: closer than that, float32 and any reward's radius take two tasks for one."""
    return tuple(round(float(f"{entry:.6g}"), 7) + 0.0 for entry in task)


class Tasks(CardModel):
    """The frozen task lists: explicit numbers, disjoint."""

    train: tuple[Task, ...] = Field(min_length=1)
    validation: tuple[Task, ...] = Field(min_length=1, description="from the range of train: what curves and choices are made on")
    test: tuple[Task, ...] = Field(min_length=1)
    ood: tuple[Task, ...] = ()
    same_tasks: bool = Field(
        default=False, description="validation and test repeat training tasks, by definition: there are two directions only"
    )

    @model_validator(mode="after")
    def _disjoint(self) -> Tasks:
        seen: dict[tuple[float, ...], str] = {}
        for split in SPLITS:
            for task in getattr(self, split):
                rounded = as_learners_see(task)
                if rounded in seen and not self.same_tasks:
                    raise ValueError(
                        f"task {list(task)} of {split!r} is also in {seen[rounded]!r}; splits must be disjoint, tasks distinct"
                    )
                seen[rounded] = split
        if len({len(task) for task in seen}) > 1:
            raise ValueError("all tasks must have the same number of entries")
        return self


class Changes(CardModel):
    """When the task changes inside an episode: after `every` to `every + spread` m or steps, uniformly drawn each time."""

    kind: Literal["place", "time"] = Field(description="by distance from where the task began (m), or by steps")
    every: float = Field(gt=0, le=LARGEST, description="shortest distance (m) or number of steps that a task lasts")
    spread: Weight = Field(default=0.0, description="how much longer it may last")


Return = Annotated[float, Field(ge=-1e12, le=1e12)]


class ReferenceSource(CardModel):
    """The runs that a reference score is the mean of."""

    agent: str
    budget: str
    digest: str = Field(description="SHA-256 of the agent's resolved configuration")
    seeds: tuple[int, ...] = Field(min_length=1)
    runs: tuple[Return, ...] = Field(min_length=1, description="mean return of the last episode on the test tasks, a number a seed")


class Reference(CardModel):
    """Measured mean returns of one episode on the test tasks: `blind` and `oracle` are the ends of the normalised score.

    `blind` is the better of standing still and of an actor-critic that is told neither task nor reward: what one gets without adapting.
    `random` acts uniformly; it is shown, and normalises nothing.
    """

    random: Return
    blind: Return
    oracle: Return
    sources: dict[Literal["random", "blind", "oracle"], ReferenceSource] = {}

    @model_validator(mode="after")
    def _ordered(self) -> Reference:
        if self.oracle - self.blind <= 1e-6 * max(1.0, abs(self.oracle), abs(self.blind)):
            raise ValueError(f"oracle must exceed blind, and by more than rounding, got {self.oracle} and {self.blind}")
        for name, source in self.sources.items():
            if len(source.seeds) != len(source.runs) or len(set(source.seeds)) < len(source.seeds):
                raise ValueError(f"sources.{name}: expected one run for each seed, got seeds {list(source.seeds)}")
            mean = sum(source.runs) / len(source.runs)
            if abs(mean - getattr(self, name)) > 1e-3:
                raise ValueError(f"{name} is {getattr(self, name)}, the mean of its runs {mean:.4f}")
        return self


class FamilyCard(CardModel):
    """One task family. `envs/<name>.toml` is the record; `dmrlad_bench.envs` turns it into environments."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$")
    version: int = Field(ge=0)
    description: str
    source: str
    body: str
    horizon: int = Field(ge=1, le=1_000_000, description="steps until truncation")
    observation_extras: tuple[Literal["x_position", "planar_position"], ...] = ()
    goal: Goal
    reward: Reward
    success: Literal["any", "final", "fraction"]
    reconstruction_dims: int = Field(ge=0, description="how many leading observation entries task inference reconstructs")
    episodes_per_trial: Annotated[int, Field(ge=1, le=10_000)] = 1
    terminates: bool = Field(default=True, description="whether an episode ends where the body says so, as when it fell")
    changes: Changes | None = Field(default=None, description="non-stationary families: when the task changes inside an episode")
    tasks: Tasks
    reference: Reference | None = None

    def __repr__(self) -> str:
        return f"FamilyCard({self.id!r})"  # a card holds hundreds of tasks

    __str__ = __repr__

    @property
    def id(self) -> str:
        """Gymnasium id, as `DMRLAD/CheetahVelSparse-v0`."""
        return f"{NAMESPACE}/{self.name}-v{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of everything on the card that changes results."""
        return digest(self, exclude=dict.fromkeys(UNHASHED, True) | unused(self, LATER_KEYS))


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
        accepted = f"{len(names)} names, as {names[0]}, that dmrlad-bench envs lists, or the path of a TOML file"
        raise CardError(f"unknown family {text!r}{nearest(stem, names)}; accepted: {accepted}")
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
