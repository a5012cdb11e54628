from __future__ import annotations

import json

import numpy as np
import pytest
from tests.recommend.taste_world import world

from genba_recommend.dataset import Catalogue, Dataset, Interactions, Item, User, histories
from genba_recommend.features import (
    EncoderConfig,
    Encoders,
    bucket_of,
    latest_windows,
    no_history,
    terms_of,
    window_of,
    windows,
)

ITEMS = (
    Item("a", title="Sea breeze", genre=("drama", "art"), maker="north", price=100.0, published_at_s=0.0),
    Item("b", title="海風の歌", genre=("drama",), maker="north", price=400.0, embedding=(1.0, 2.0)),
    Item("c", tags=("night",), performers=("Ueda", "Kato")),
)


def encoders(**config: int) -> Encoders:
    events = Interactions.of([0, 0], [0, 1], [0.0, 86_400.0])
    return Encoders.fit(Dataset(Catalogue(ITEMS), (User("u", region="tokyo"),), events), EncoderConfig(**config))


def test_encoders_read_from_their_file_encode_the_same() -> None:
    fitted = encoders()
    read = Encoders.from_json(fitted.to_json())
    assert read == fitted
    for name, column in fitted.items(ITEMS).columns().items():
        assert np.array_equal(column, read.items(ITEMS).columns()[name]), name


def test_a_file_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        Encoders.from_json(json.dumps({"format": 99}))


def test_an_item_without_events_has_no_id_and_keeps_its_features() -> None:
    found = encoders(min_count=1).items(ITEMS)
    assert found.id.tolist() == [1, 2, 0]
    assert found.tags[2, 0] == 2
    assert (found.performers[2] > 0).sum() == 2


def test_what_training_never_saw_is_unknown_and_what_is_missing_is_nothing() -> None:
    found = encoders().items([Item("new", genre=("opera", "drama"), price=None)])
    assert found.genre[0, :3].tolist() == [2, 1, 0]  # drama is the commonest; the unknown comes last
    assert found.number_bucket[0].tolist() == [0, 0, 0]
    assert found.maker[0, 0] == 0


def test_a_text_becomes_a_unit_vector_of_its_heaviest_terms() -> None:
    found = encoders(text_len=8).items(ITEMS)
    assert np.linalg.norm(found.text_weight[:2], axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert not found.text_weight[2].any()


def test_text_without_spaces_is_read_in_pairs_of_characters() -> None:
    assert terms_of("海風の歌 Sea") == ["海風", "風の", "の歌", "sea"]
    assert terms_of("ABC") == ["abc"]  # full width is the same word


def test_the_hash_is_the_published_one() -> None:
    assert bucket_of("foobar", 1 << 32) == 0xBF9CF968 + 1  # FNV-1a test vector


def test_an_embedding_of_another_length_or_beyond_single_precision_counts_as_none() -> None:
    found = encoders().items([Item("x", embedding=(1.0,)), ITEMS[1], Item("y", embedding=(1e308, 0.0))])
    assert found.embedding.tolist() == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]


def test_a_window_never_shows_the_event_that_it_is_asked_for_or_a_later_one() -> None:
    past = histories(Interactions.of([0, 0, 0, 1], [7, 8, 9, 5], [1.0, 2.0, 3.0, 1.0]), n_users=2)
    assert windows(past, np.array([0]), np.array([2]), length=3).history.tolist() == [[9, 8, 0]]
    assert latest_windows(past, np.array([0, 1]), length=2).history.tolist() == [[10, 9], [6, 0]]


def test_a_session_of_rows_is_a_window() -> None:
    found = window_of([4, 2], length=3)
    assert found.history.tolist() == [[5, 3, 0]]
    assert found.weight.tolist() == [[1.0, 1.0, 0.0]]


def test_a_profile_counts_the_genres_and_makers_of_the_history() -> None:
    fitted = encoders(top_len=2)
    found = fitted.users([User("v", region="tokyo")], window_of([1, 0], length=100), fitted.items(ITEMS))
    drama = fitted.items(ITEMS).genre[1, 0]
    assert found.genre[0, 0] == drama
    assert found.maker[0].tolist() == [2, 0]
    assert found.region[0] == 2
    assert found.number[0, 0] == pytest.approx(np.log(3))


def test_a_user_of_whom_nothing_is_known_can_be_encoded() -> None:
    fitted = encoders()
    found = fitted.users([User("x")], no_history(1, length=100), fitted.items(ITEMS))
    assert not any(column.any() for column in found.columns().values())


def test_a_world_encodes_to_shapes_that_the_towers_expect() -> None:
    data = world()
    fitted = Encoders.fit(data)
    found = fitted.items(data.catalogue)
    assert len(found) == len(data.catalogue)
    assert found.take(np.array([3])).id.shape == (1,)
