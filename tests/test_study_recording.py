"""The recording study: a recording made from a power law, and networks made up beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from selkern.data import Recording
from selkern.study.recording.cli import main
from selkern.study.recording.measure import measure

STIMULI, NEURONS = 90, 120


def responses(exponent: float) -> np.ndarray:
    """Responses whose spectrum, with no mean removed, is exactly a power law."""
    generator = np.random.default_rng(0)
    left = np.linalg.qr(generator.normal(size=(STIMULI, STIMULI)))[0]
    right = np.linalg.qr(generator.normal(size=(NEURONS, STIMULI)))[0]
    return left * np.arange(1, STIMULI + 1) ** (-exponent / 2) @ right.T


@pytest.fixture
def recording(tmp_path):
    """A file without noise, of exponent 1.3."""
    clean = responses(1.3)
    path = tmp_path / "recording.npy"
    np.save(path, np.stack([clean, clean]))
    return path


@pytest.fixture
def spectra(tmp_path):
    """The folder of a spectrum study of two networks, of exponents 0.5 and 1 or 2."""
    folder = tmp_path / "spectra"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({"study": "spectrum"}))
    rows = [
        {
            "network": f"mlp/{regularizer}",
            "architecture": "mlp",
            "regularizer": regularizer,
            "seed": 0,
            "perturbation": "none",
            "strength": 0,
            "accuracy": 0.9,
            "layers": {
                "hidden1": {"spectrum": [n**-0.5 for n in range(1, 61)]},
                "hidden2": {"spectrum": [float(n) ** -exponent for n in range(1, 41)]},
            },
        }
        for regularizer, exponent in (("none", 2), ("all layers", 1))
    ]
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def test_a_recording_made_from_a_power_law_gives_its_exponent(recording, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["--data", str(recording), "--output", str(output), "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((output / "summary.json").read_text())
    [row] = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert row["exponent"] == pytest.approx(1.3, abs=1e-6)
    assert (row["first"], row["last"]) == (11, STIMULI)
    assert (row["stimuli"], row["neurons"]) == (STIMULI, NEURONS)
    assert sum(row["spectrum"]) == pytest.approx(1, abs=1e-4)
    assert "1.30 is above that from d = 7 on" in (output / "report.md").read_text()
    assert (output / "recording.png").stat().st_size > 0


def test_noise_that_the_repeats_do_not_share_leaves_the_exponent():
    generator = np.random.default_rng(1)
    clean = responses(1.0) * 50
    repeats = [torch.from_numpy(clean + generator.normal(size=clean.shape)) for _ in range(2)]
    found = measure(Recording(*repeats), first=3, last=15)
    assert float(found.fit.exponent) == pytest.approx(1.0, abs=3 * found.standard_error)
    assert 0 < found.standard_error < 0.2


def test_the_interval_is_1_96_standard_deviations_over_halves_to_either_side():
    clean = torch.from_numpy(responses(1.0))
    found = measure(Recording(clean, clean), first=3, last=20, shuffles=1)
    assert len(found.halves) == 20
    width = 1.96 * np.std(found.halves, ddof=1)
    assert found.exponent.mean == pytest.approx(1.0)
    assert found.exponent.high - found.exponent.mean == pytest.approx(width)
    assert found.exponent.mean - found.exponent.low == pytest.approx(width)


def test_halves_that_have_too_few_ranks_give_no_interval():
    clean = torch.from_numpy(responses(1.0)[:20])
    found = measure(Recording(clean, clean), first=10, last=20, shuffles=1)
    assert found.halves == ()
    assert (found.exponent.low, found.exponent.high) == (None, None)


def test_the_seed_decides_shuffles_and_halves(recording):
    generator = np.random.default_rng(1)
    repeats = Recording(*torch.from_numpy(generator.normal(size=(2, 30, 40))))
    once, again, other = (measure(repeats, shuffles=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(once.spectrum, again.spectrum)
    assert once.halves == again.halves
    assert not torch.equal(once.spectrum, other.spectrum)


def test_networks_stand_beside_the_recording_on_the_same_ranks(
    recording, spectra, tmp_path, capsys
):
    output = tmp_path / "out"
    options = ["--data", str(recording), "--spectra", str(spectra), "--output", str(output)]
    assert main([*options, "--first", "5", "--last", "50", "--shuffles", "2", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "| mlp, none |  | 0.50 | 2.00 |" in printed
    assert "| mlp, all layers |  | 0.50 | 1.00 |" in printed
    assert printed in (output / "report.md").read_text()
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [(row["first"], row["last"]) for row in rows] == [(5, 50), *[(5, 50), (5, 40)] * 2]


def test_what_is_no_finished_spectrum_study_is_refused(recording, spectra, tmp_path, capsys):
    def refusal(folder) -> str:
        with pytest.raises(SystemExit) as refused:
            main(["--data", str(recording), "--spectra", str(folder), "--output", str(tmp_path)])
        assert refused.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "must be the folder of a spectrum study" in refusal(tmp_path)
    (spectra / "results.jsonl").write_text("")
    assert "must hold a spectrum study that is finished" in refusal(spectra)
    (spectra / "results.jsonl").unlink()
    assert "must hold a spectrum study that is finished" in refusal(spectra)
    (spectra / "study.json").write_text(json.dumps({"study": "selectivity"}))
    assert "must be the folder of a spectrum study" in refusal(spectra)


@pytest.mark.parametrize(
    ("repeats", "options", "message"),
    [
        (np.ones((2, 8, 20)), [], "at least two ranks from 11 to 500, got 8 ranks"),
        (np.ones((2, 30, 20)), ["--last", "11"], "at least two ranks from 11 to 11, got 20 ranks"),
        (np.zeros((2, 30, 20)), [], "must have responses to the stimuli in common"),
        (np.ones((3, 30, 20)), [], "must have shape [2, S, N]"),
        (None, [], "there is no"),
    ],
)
def test_recordings_that_cannot_be_measured_are_refused(
    repeats, options, message, tmp_path, capsys
):
    path = tmp_path / "recording.npy"
    if repeats is not None:
        np.save(path, repeats)
    with pytest.raises(SystemExit) as refused:
        main(["--data", str(path), "--output", str(tmp_path), "--quiet", *options])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
