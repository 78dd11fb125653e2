"""Sounds, from parquet and arrays, as the model's feature extractor gives them."""

import numpy as np
import pytest
import torch
import transformers

from tests import small_tasks as tasks
from tests import tiny
from tests.tiny import write_parquet
from workers.data.audio import decode
from workers.data.load import load_bundle
from workers.errors import DataError, ModelError
from workers.models.load import load_model

SPEC = tasks.data("audio-classification")
WAVE = tasks.tone(0, 400, np.random.default_rng(0))


def read(tmp_path, folder, cells: list, labels: list[int], **fields: object):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"data/{split}.parquet", audio=cells, label=labels)
    model = load_model(folder, SPEC.task)
    return load_bundle(tmp_path / "data", SPEC.model_copy(update=fields), model, seed=0)


def test_each_sound_is_normalized_by_the_extractor_and_padded(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    cells = [{"bytes": tasks.wav(WAVE), "path": "a.wav"}, {"bytes": tasks.wav(WAVE[:300]), "path": None}]

    train = read(tmp_path, folder, cells, [0, 3]).train

    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    waves = [decode(0, cell, tasks.RATE, 1000, "here") for cell in cells]
    expected = [extractor(wave, sampling_rate=tasks.RATE)["input_values"][0] for wave in waves]
    values = train.inputs["input_values"]
    assert list(train.inputs) == ["input_values"]
    assert values.shape == (2, 400)
    assert torch.equal(values[0], torch.from_numpy(expected[0]))
    assert torch.equal(values[1, :300], torch.from_numpy(expected[1]))
    assert not values[1, 300:].any()
    assert train.labels.tolist() == [0, 3]


def test_an_extractor_that_states_a_mask_gives_one(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model", feat_extract_norm="layer")

    train = read(tmp_path, folder, [tasks.wav(WAVE), tasks.wav(WAVE[:300])], [0, 1]).train

    assert train.inputs["attention_mask"].sum(dim=1).tolist() == [400, 300]
    assert train.inputs["attention_mask"].dtype == torch.int64


def test_a_spectrogram_has_the_length_that_its_extractor_states(tmp_path):
    folder = tasks.spectrogram_transformer(tmp_path / "model")
    cells = [tasks.wav(np.tile(WAVE, repeats), 16_000) for repeats in (20, 50)]

    train = read(tmp_path, folder, cells, [0, 1]).train

    assert train.inputs["input_values"].shape == (2, 32, 32)


def test_long_sounds_are_cut_and_channels_are_averaged(tmp_path):
    stereo = np.stack([WAVE, -WAVE / 2], axis=1)

    wave = decode(0, tasks.wav(stereo), tasks.RATE, 250, "here")

    assert wave.shape == (250,)
    assert np.allclose(wave, WAVE[:250] / 4, atol=1e-4)
    folder = tasks.wav2vec2(tmp_path / "model")
    assert read(tmp_path, folder, [tasks.wav(WAVE)], [0], max_seconds=0.2).train.inputs[
        "input_values"
    ].shape == (1, 200)


def test_flac_gives_what_wav_gives():
    waves = [decode(0, tasks.wav(WAVE, kind=kind), tasks.RATE, 400, "here") for kind in ("WAV", "FLAC")]

    assert np.allclose(*waves, atol=1e-4)


def test_arrays_are_sounds_at_the_models_rate(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", audio=np.stack([WAVE, -WAVE]), label=[1, 2])

    train = load_bundle(tmp_path, SPEC, load_model(folder, SPEC.task), seed=0).train

    assert train.inputs["input_values"].shape == (2, 400)
    assert train.labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (tasks.wav(WAVE, 8000), "row 7 has 8000 samples a second, the model takes 1000: resample"),
        (tasks.wav(WAVE)[:30], "row 7 is not a readable sound"),
        (b"OggS not that", "row 7 holds no WAV or FLAC file"),
        ({"bytes": None, "path": "a.wav"}, "row 7 holds no WAV or FLAC file"),
        (None, "row 7 holds no WAV or FLAC file"),
        (tasks.wav(WAVE[:0]), "row 7 is empty"),
        (tasks.wav(np.tile(WAVE[:, None], 9)), "row 7 has 9 channels"),
    ],
)
def test_a_sound_that_is_wrong_is_named(cell, told):
    with pytest.raises(DataError, match=f"here: {told}"):
        decode(7, cell, tasks.RATE, 400, "here")


def test_arrays_of_another_kind_are_refused(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    for split in ("train", "validation"):
        np.savez(tmp_path / f"{split}.npz", audio=np.zeros((2, 9), np.int16), label=[1, 2])

    with pytest.raises(DataError, match=r"train\.npz: the array 'audio' is int16"):
        load_bundle(tmp_path, SPEC, load_model(folder, SPEC.task), seed=0)


def test_a_model_without_an_extractor_is_refused(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match=r"no preprocessor_config\.json.*states the sampling rate"):
        read(tmp_path, folder, [tasks.wav(WAVE)], [0])


def test_an_extractor_of_the_folders_own_code_is_refused(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    tiny.edit_json(folder / "preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.Evil"})

    with pytest.raises(ModelError, match="auto_map"):
        read(tmp_path, folder, [tasks.wav(WAVE)], [0])


def test_a_broken_extractor_is_refused(tmp_path):
    folder = tasks.wav2vec2(tmp_path / "model")
    tiny.edit_json(folder / "preprocessor_config.json", feature_extractor_type="NoSuchExtractor")
    tiny.edit_json(folder / "config.json", model_type="wav2vec2")

    with pytest.raises(ModelError, match=r"preprocessor_config\.json is not valid"):
        read(tmp_path, folder, [tasks.wav(WAVE)], [0])
