"""The lane that decides: views in, a Decision out, from one encoder, one fusion, one classifier and one set of masters.

``see`` turns a picture into a SeenView (outline, quality, size, raw row) once; ``Lane.decide`` needs no picture again, so a rename,
a merge or another master set costs no inference. A Lane is immutable and threads may share it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba_sem.classifier import (
    CLASSIFIERS,
    DEFAULT,
    Classifier,
    Floats,
    LeftOut,
    Prototypes,
    fitted_temperature,
    greatest_cosine,
    label_indices,
    leave_out,
    tempered,
)
from genba_sem.deciding import (
    Calibration,
    Outcome,
    Policy,
    Reviewed,
    calibrate,
    is_audited,
    label_set,
    outcome_of,
)
from genba_sem.encoders import Encoder
from genba_sem.learnt_head import LearntHead
from genba_sem.masters import MasterSet
from genba_sem.micrograph import View
from genba_sem.quality import Quality, judge
from genba_sem.segment import Mask, Outline, find_particle, outline_of
from genba_sem.shape import Shape, measure
from genba_sem.views import Fused, Fusion, QualityMean

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SeenView:
    """All that is kept of a picture. raw: (raw_dim,) of the kind of encoder named; shape: in µm where the pixel size is
    known, else in the file's pixels.
    """

    raw: Rows
    encoder: str
    quality: Quality
    outline: Outline
    shape: Shape | None
    pixel_size_nm: float | None


@dataclass(frozen=True)
class ViewVerdict:
    """What one view says. weight: its share in the decision; label_id: what it would say alone, with that confidence;
    contribution: how much the decided label's probability falls without this view.
    """

    quality: float
    quality_reasons: tuple[str, ...]
    weight: float
    label_id: str
    confidence: float
    contribution: float


@dataclass(frozen=True)
class NearMaster:
    """A master and its cosine to the particle."""

    particle_id: str
    label_id: str
    cosine: float


@dataclass(frozen=True)
class Versions:
    """Which parts made the decision."""

    encoder: str
    fusion: str
    classifier: str
    master_set: str


@dataclass(frozen=True)
class Decision:
    """label_id: the likeliest label, None when the particle is unknown. confidence: its probability, tempered.

    label_set: holds the truth with the policy's coverage. probabilities: by label id. similarity: greatest cosine to a label's prototype.
    agreement: weighted share of views that would say the same. reasons: see ``deciding.outcome_of``. audit: confirmed, and to be
    reviewed all the same. recommended_view: index of the view that shows most; shape: of the view with the largest whole
    outline. reviews_needed: error-free reviews until something can be confirmed.
    """

    label_id: str | None
    outcome: Outcome
    confidence: float
    label_set: tuple[str, ...]
    probabilities: dict[str, float]
    similarity: float
    agreement: float
    reasons: tuple[str, ...]
    audit: bool
    views: tuple[ViewVerdict, ...]
    recommended_view: int
    nearest: tuple[NearMaster, ...]
    shape: Shape | None
    reviews_needed: int
    versions: Versions
    row: Rows


def see(
    view: View, encoder: Encoder, *, click: tuple[float, float] | None = None, mask: Mask | None = None
) -> SeenView:
    """Look at a picture once. click: (x, y) on the particle; mask: a given outline, (H, W), instead of finding one."""
    outline = outline_of(mask) if mask is not None else find_particle(view.pixels, click=click)
    shape = measure(outline)
    if shape is not None:
        shape = shape.times(view.shrunk) if view.pixel_size_nm is None else shape.in_um(view.pixel_size_nm)
    raw = encoder.describe(view.pixels, outline.mask)
    return SeenView(raw, encoder.kind, judge(view, outline), outline, shape, view.pixel_size_nm)


class Lane:
    """Encoder, fusion, classifier and masters, calibrated by leaving masters out and by past reviews."""

    def __init__(
        self,
        encoder: Encoder,
        masters: MasterSet,
        *,
        fusion: Fusion | None = None,
        classifier: str = DEFAULT,
        head: LearntHead | None = None,
        policy: Policy | None = None,
        reviews: Sequence[Reviewed] = (),
    ) -> None:
        """classifier: what is made of the masters; head: decides in its place where it knows all their labels."""
        self.encoder, self.masters = encoder, masters.checked()
        self.fusion: Fusion = fusion or QualityMean()
        self.policy = policy or Policy()
        self.labels = masters.labels
        self.rows = np.stack([self._fused(p.raw, p.quality)[1].row for p in masters.particles])  # (M, D)
        self._truth = label_indices([p.label_id for p in masters.particles], self.labels)
        self.made_of_masters = classifier
        self.head = head if head is not None and head.speaks_for(self.labels, self.rows.shape[1]) else None
        self._classifier: Classifier = (
            self.head.over(self.labels)
            if self.head is not None
            else CLASSIFIERS[classifier](self.rows, self._truth, len(self.labels))
        )
        self._prototypes = Prototypes(self.rows, self._truth, len(self.labels))
        self.left_out = self._left_out()
        self.temperature = fitted_temperature(self.left_out.logits, self.left_out.labels)
        self.calibration: Calibration = self._calibration(reviews)
        self.versions = Versions(
            encoder.id, self.fusion.id, self._classifier.id, masters.version or masters.fingerprint
        )

    def calibrated_by(self, reviews: Sequence[Reviewed]) -> Lane:
        """The same lane, its thresholds set by reviews."""
        lane = copy.copy(self)
        lane.calibration = self._calibration(reviews)
        return lane

    @property
    def space(self) -> str:
        """What fused rows mean: rows are compared only under the same one."""
        return space_of(self.encoder, self.fusion)

    def _left_out(self) -> LeftOut:
        if self.head is None:
            return leave_out(self.made_of_masters, self.rows, self._truth, len(self.labels))
        ids = [particle.particle_id for particle in self.masters.particles]
        return self.head.calibrates(ids, self.rows, self._truth, self.labels)

    def _calibration(self, reviews: Sequence[Reviewed]) -> Calibration:
        left, count = self.left_out, len(self.left_out.labels)
        probabilities = tempered(left.logits, self.temperature) if count else np.zeros((0, 1))
        return calibrate(
            reviews,
            self.policy,
            left_out_truth=probabilities[np.arange(count), left.labels],
            left_out_similarity=left.similarity,
        )

    def decide(self, views: Sequence[SeenView], *, particle_id: str = "") -> Decision:
        """Decide one particle of one or more views.

        Raises: ValueError without views, or for views of another encoder.
        """
        if not views:
            raise ValueError("A particle needs a view.")
        if any(view.encoder != self.encoder.kind or len(view.raw) != self.encoder.raw_dim for view in views):
            raise ValueError("A view was described by another encoder.")
        quality = np.array([view.quality.score for view in views], np.float32)
        rows, fused = self._fused(np.stack([view.raw for view in views]), quality)
        probabilities, alone = self.probabilities(fused.row[None])[0], self.probabilities(rows)
        best = int(probabilities.argmax())
        agreement = float(fused.weights @ (alone.argmax(1) == best))
        similarity = float(greatest_cosine(fused.row[None], self._prototypes.rows)[0])
        members = label_set(probabilities, self.labels, self.calibration)
        outcome, reasons = outcome_of(
            probabilities,
            similarity=similarity,
            agreement=agreement,
            quality=float(quality.max()),
            calibration=self.calibration,
        )
        verdicts = self._verdicts(views, rows, quality, fused.weights, alone, best)
        return Decision(
            None if outcome == "unknown" else self.labels[best],
            outcome,
            float(probabilities[best]),
            members,
            dict(zip(self.labels, map(float, probabilities), strict=True)),
            similarity,
            agreement,
            reasons,
            outcome == "confirmed" and is_audited(particle_id, self.policy),
            verdicts,
            int(np.argmax(quality * alone[:, best])),
            self.nearest(fused.row),
            _best_shape(views),
            self.calibration.reviews_needed,
            self.versions,
            fused.row,
        )

    def row(self, views: Sequence[SeenView]) -> Rows:
        """(D,) of a particle, as its decision would keep it."""
        quality = np.array([view.quality.score for view in views], np.float32)
        return self._fused(np.stack([view.raw for view in views]), quality)[1].row

    def probabilities(self, rows: Rows) -> Floats:
        """(N, C) tempered probabilities of fused rows (N, D)."""
        return tempered(self._classifier.logits(rows), self.temperature)

    def nearest(self, row: Rows, *, count: int = 5) -> tuple[NearMaster, ...]:
        """The masters nearest to a fused row (D,)."""
        cosines = self.rows @ row
        order = np.argsort(-cosines, kind="stable")[:count]
        particles = self.masters.particles
        return tuple(NearMaster(particles[i].particle_id, particles[i].label_id, float(cosines[i])) for i in order)

    def _fused(self, raw: Rows, quality: Rows) -> tuple[Rows, Fused]:
        rows = self.encoder.embed(raw)
        return rows, self.fusion.fuse(rows, quality)

    def _verdicts(
        self, views: Sequence[SeenView], rows: Rows, quality: Rows, weights: Rows, alone: Floats, best: int
    ) -> tuple[ViewVerdict, ...]:
        fused = [self.fusion.fuse(rows, quality).row]
        for index in range(len(views)):
            others = np.arange(len(views)) != index
            fused.append(
                self.fusion.fuse(rows[others], quality[others]).row if others.any() else np.zeros_like(rows[0])
            )
        whole, *without = self.probabilities(np.stack(fused))[:, best]
        verdicts = []
        for index, view in enumerate(views):
            own = int(alone[index].argmax())
            verdicts.append(
                ViewVerdict(
                    view.quality.score,
                    view.quality.reasons,
                    float(weights[index]),
                    self.labels[own],
                    float(alone[index, own]),
                    float(whole - without[index]),
                )
            )
        return tuple(verdicts)


def space_of(encoder: Encoder, fusion: Fusion) -> str:
    """What rows mean that this encoder embeds and this fusion makes one."""
    return encoder.id if isinstance(fusion, QualityMean) else f"{encoder.id} {fusion.id}"


def _best_shape(views: Sequence[SeenView]) -> Shape | None:
    """Of the view with the largest whole outline, those with a size in µm first."""
    shapes = [view.shape for view in views if view.shape is not None]
    return max(shapes, key=lambda shape: (shape.unit == "µm", shape.area), default=None)
