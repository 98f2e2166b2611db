"""Joints and bones of one body, 0-based, and the tree that they form."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Skeleton:
    """Joints and bones of one body. All indices are 0-based.

    joints: names, in file order.  bones: (child, parent) pairs, a tree that hangs on the joint `root`.
    centre: the joint that is moved to the origin.  spine: (lower, upper) joints that define "up".
    shoulders: (right, left) joints that define "across".  mirror_pairs: (left, right) joints.
    ends: (left hand, right hand, head), from which the distances of all joints are taken where a recipe asks
        for them; None where the spec does not say.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    root: int
    centre: int
    spine: tuple[int, int]
    shoulders: tuple[int, int]
    mirror_pairs: tuple[tuple[int, int], ...]
    ends: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        named = self._named()
        for key, joints in named.items():
            for joint in joints:
                if not 0 <= joint < self.num_joints:
                    raise ValueError(
                        f"skeleton.{key}: there is no joint {joint + 1}: the {self.num_joints} of "
                        f"skeleton.joints are numbered from 1 to {self.num_joints}"
                    )
        self._check_tree()
        sides = named["mirror_pairs"]
        twice = sorted({joint for joint in sides if sides.count(joint) > 1})
        if twice:
            raise ValueError(
                f"skeleton.mirror_pairs: {self._called(twice[0])} is named twice; each has one other side"
            )

    def _named(self) -> dict[str, tuple[int, ...]]:
        """The joints that stand under each key."""
        return {
            "root": (self.root,),
            "centre": (self.centre,),
            "bones": tuple(joint for bone in self.bones for joint in bone),
            "spine": self.spine,
            "shoulders": self.shoulders,
            "mirror_pairs": tuple(joint for pair in self.mirror_pairs for joint in pair),
            "ends": self.ends or (),
        }

    def _check_tree(self) -> None:
        children = [child for child, _ in self.bones]
        for joint in range(self.num_joints):
            if children.count(joint) != (joint != self.root):
                raise ValueError(
                    f"skeleton.bones: every joint but the root must be the child of exactly one bone; "
                    f"{self._called(joint)} is that of {children.count(joint)}"
                )
        loose = set(range(self.num_joints)) - _reachable(self.root, self.bones)
        if loose:
            raise ValueError(
                f"skeleton.bones: they do not form one tree under the root; {self._called(min(loose))} "
                f"does not hang on it"
            )

    def _called(self, joint: int) -> str:
        return f"{'the root, ' * (joint == self.root)}joint {joint + 1} ({self.joints[joint]})"

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The parent of every joint; the root is its own."""
        parent_of = dict(self.bones) | {self.root: self.root}
        return tuple(parent_of[joint] for joint in range(self.num_joints))

    @cached_property
    def outward(self) -> tuple[tuple[int, int], ...]:
        """(joint, parent) from the root, which is its own, outward: no joint before its parent."""
        order = [(self.root, self.root)]
        for placed, _ in order:  # grows while it is gone through
            order += [(joint, placed) for joint in range(self.num_joints) if (joint, placed) in self.bones]
        return tuple(order)


def _reachable(root: int, bones: tuple[tuple[int, int], ...]) -> set[int]:
    seen, border = {root}, {root}
    while border:
        border = {child for child, parent in bones if parent in border} - seen
        seen |= border
    return seen
