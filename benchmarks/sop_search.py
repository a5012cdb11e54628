"""Find the same step in other people's videos by a clip of it, and say what the index costs beside a plain matrix product.

Protocol. Runs of all three procedures as in ``sop_deviations.py`` (other operators, cameras, lights and speeds, decoded from
files), eight of each, most with planted faults, stored and indexed as svc-sop does. Every step of every run is a query, cut
where it was rendered; the service's own search answers it (2 s clips, nearest first, what shows the same is thinned out).
Only other videos count. A clip is right if most of it lies in the same step of another run; *recall@k* is the share of the
other runs' performances of the step that the first k clips lie in, its ceiling what k clips could reach; *hit@1* is the share
of queries whose first clip is right. Nothing was tuned on any of these runs.

Beside it stand two rules that look at no picture: the same relative moment of every other run, those of the most alike length
first (it knows that procedures have an order), and clips by chance.

Speed: the index (filters and all) and ``numpy`` (one product with all vectors, then the k best) answer the same queries on the
same vectors, in turns; the ratio of the medians is what to compare.

Run: python benchmarks/sop_search.py [--cache FOLDER] [--runs N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database, utc_now
from genba_shared.principal import Clearance, Principal, scopes_of
from genba_shared.settings import Platform
from genba_shared.vectors import open_vectors
from genba_sop import search
from genba_sop.bundles import clips, mean_vector, pack_features
from genba_sop.clip_index import ClipIndex
from genba_sop.features import Array
from genba_sop.procedure import Span
from genba_sop.tables import Video

if TYPE_CHECKING:
    from benchmarks.sop_deviations import KINDS, SEEN, Corpus, Sample, fill
else:  # beside this script
    from sop_deviations import KINDS, SEEN, Corpus, Sample, fill

SOMEBODY = Principal("benchmark", ("engineer",), scopes_of(("engineer",)), Clearance.INTERNAL)
DEPTHS = (1, 5, 10)
MOST_ASKED = 50  # the asked video's own clips are among the answers, and do not count
PLANS = 24  # the runs are the first of so many

Place = tuple[int, float, float]  # run, start and end in seconds


@dataclass(frozen=True)
class Asked:
    """A query: a step of a run, and where the other runs of its procedure show the same step."""

    run: int
    span: Span
    wanted: tuple[Place, ...]


@dataclass(frozen=True)
class Library:
    """Runs in a store of their own, indexed."""

    samples: Sequence[Sample]
    database: Database
    index: ClipIndex

    def ask(self, asked: Asked) -> list[Place]:
        """What the service finds in other videos, best first."""
        clip = (_name(asked.run), asked.span.start_s, asked.span.end_s)
        with self.database.read() as session:
            found = search.run(
                session,
                SOMEBODY,
                search.Query(clip=clip, k=MOST_ASKED),
                clips=self.index,
                features=lambda video: self.samples[int(video.id.removeprefix("vid_"))].features,
            )
        places = [each.moment for each in found]
        return [
            (int(place.video_id.removeprefix("vid_")), place.start_s, place.end_s)
            for place in places
            if place.video_id != _name(asked.run)
        ]


def _name(run: int) -> str:
    return f"vid_{run}"


def store(samples: Sequence[Sample], home: Path) -> Library:
    """Record the runs as videos of a fresh embedded svc-sop and index their clips."""
    platform = Platform(home=home)
    database, artifacts = Database(platform.database_url), Artifacts(platform.artifacts_url)
    database.upgrade()
    with database.transaction() as session:
        for run, sample in enumerate(samples):
            features = sample.features
            key = artifacts.put(pack_features(features), suffix=".npz")
            session.add(
                Video(
                    id=_name(run), created_at=utc_now(), created_by=SOMEBODY.subject, tenant=SOMEBODY.tenant,
                    clearance=Clearance.INTERNAL, title=_name(run), sha256=f"{run:064x}", size_bytes=0, info={},
                    encoder=features.encoder, duration_s=features.duration_s, sampled_frames=len(features.times_s),
                    video_key=key, features_key=key, thumbnails_key=key, timings_ms={}, expires_at=None,
                    clip_count=len(list(clips(features))), indexed_in=None,
                )
            )  # fmt: skip
    first = samples[0].features
    index = ClipIndex(
        open_vectors(platform), database, artifacts, encoder=first.encoder, dim=int(first.values.shape[1])
    )
    index.open()
    return Library(samples, database, index)


def queries(samples: Sequence[Sample]) -> list[Asked]:
    """Every step of every run that another run shows as well."""
    asked = []
    for run, sample in enumerate(samples):
        for span in sample.spans:
            wanted = tuple(
                (other, theirs.start_s, theirs.end_s)
                for other, their in enumerate(samples)
                if other != run and their.kind == sample.kind
                for theirs in their.spans
                if theirs.step_id == span.step_id
            )
            if wanted:
                asked.append(Asked(run, span, wanted))
    return asked


def _lies_in(place: Place, wanted: Place) -> bool:
    shared_s = min(place[2], wanted[2]) - max(place[1], wanted[1])
    return place[0] == wanted[0] and shared_s > 0.5 * (place[2] - place[1])


def same_moment(samples: Sequence[Sample], asked: Asked) -> list[Place]:
    """The same relative moment of every other run, those of the most alike length first."""
    own = samples[asked.run].features.duration_s
    middle = (asked.span.start_s + asked.span.end_s) / 2 / own
    others = [n for n in range(len(samples)) if n != asked.run]
    others.sort(key=lambda n: abs(np.log(samples[n].features.duration_s / own)))
    at = [(n, middle * samples[n].features.duration_s) for n in others]
    return [(n, moment_s - 1.0, moment_s + 1.0) for n, moment_s in at]


def by_chance(samples: Sequence[Sample], asked: Asked) -> list[Place]:
    """Clips drawn from all other runs, each moment as likely as any."""
    rng = np.random.default_rng((asked.run, round(1000 * asked.span.start_s)))
    others = [n for n in range(len(samples)) if n != asked.run]
    lengths = np.array([samples[n].features.duration_s for n in others])
    runs = rng.choice(others, max(DEPTHS), p=lengths / lengths.sum())
    starts = [(int(n), float(rng.uniform(0, samples[n].features.duration_s - 2.0))) for n in runs]
    return [(n, start_s, start_s + 2.0) for n, start_s in starts]


def print_quality(name: str, every: Sequence[Asked], answers: Sequence[Sequence[Place]]) -> None:
    """One row: hit@1, and recall at each depth with its ceiling."""
    hits = [
        bool(places) and any(_lies_in(places[0], w) for w in a.wanted) for a, places in zip(every, answers, strict=True)
    ]
    shown = []
    for k in DEPTHS:
        reached = [
            np.mean([any(_lies_in(place, w) for place in places[:k]) for w in a.wanted])
            for a, places in zip(every, answers, strict=True)
        ]
        ceiling = np.mean([min(k, len(a.wanted)) / len(a.wanted) for a in every])
        shown.append(f"{np.mean(reached):.3f} of {ceiling:.3f}")
    print(f"  {name:<26}{np.mean(hits):>7.3f}" + "".join(f"{text:>17}" for text in shown))


def print_speed(library: Library, every: Sequence[Asked], *, k: int) -> None:
    """The index and a plain matrix product on the same vectors, in turns, and whether they agree."""
    table = [(run, clip) for run, sample in enumerate(library.samples) for clip in clips(sample.features)]
    matrix = np.stack([clip.vector for _, clip in table])  # (N, D)
    encoder = library.samples[0].features.encoder
    asked = [mean_vector(library.samples[a.run].features, a.span.start_s, a.span.end_s) for a in every]
    vectors = [vector for vector in asked if vector is not None]

    def plain(vector: Array) -> list[float]:
        near = matrix @ vector
        best = np.argpartition(-near, k)[:k]
        return sorted((float(near[n]) for n in best), reverse=True)

    def indexed(vector: Array) -> list[float]:
        return [hit.similarity for hit in library.index.search(vector, encoder=encoder, principal=SOMEBODY, k=k)]

    times: dict[str, list[float]] = {"index": [], "numpy": []}
    agree = 0
    for vector in vectors:
        found = {name: _timed(way, vector, times[name]) for name, way in (("index", indexed), ("numpy", plain))}
        agree += bool(np.allclose(found["index"], found["numpy"], atol=1e-4))
    middle = {name: float(np.median(spent)) for name, spent in times.items()}
    print(
        f"\nSpeed, {len(matrix)} vectors of {matrix.shape[1]}, {k} best: index {1e3 * middle['index']:.2f} ms, "
        f"numpy {1e3 * middle['numpy']:.2f} ms, ratio {middle['index'] / middle['numpy']:.1f}; "
        f"the same similarities in {agree} of {len(vectors)} queries"
    )


def _timed(way: Callable[[Array], list[float]], vector: npt.NDArray[np.float32], spent_s: list[float]) -> list[float]:
    started = time.perf_counter()
    found = way(vector)
    spent_s.append(time.perf_counter() - started)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=None, help="where videos and features are kept for the next run")
    parser.add_argument("--runs", type=int, default=8, help="of each procedure")
    arguments = parser.parse_args()
    default = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir())) / "genba-sop-deviations"
    corpus = Corpus(arguments.cache or default, SEEN)
    corpus.folder.mkdir(parents=True, exist_ok=True)
    wanted = [run for kind in KINDS for run in corpus.wanted(kind, golds=0, variants=PLANS)[: arguments.runs]]
    samples = fill(corpus, wanted)
    every = queries(samples)
    print(f"\n{len(every)} queries in {len(samples)} videos; ceilings are what so many clips could reach")
    print(f"  {'':<26}{'hit@1':>7}" + "".join(f"{f'recall@{k}':>17}" for k in DEPTHS))
    with tempfile.TemporaryDirectory() as home:
        library = store(samples, Path(home))
        print_quality("search", every, [library.ask(a) for a in every])
        print_quality("same relative moment", every, [same_moment(samples, a) for a in every])
        print_quality("by chance", every, [by_chance(samples, a) for a in every])
        print_speed(library, every, k=search.CANDIDATES)


if __name__ == "__main__":
    main()
