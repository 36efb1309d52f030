"""The recording study: a recording made from a power law, and networks made up beside it."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from selkern import analysis
from selkern._command import CommandFailed
from selkern.data import Recording
from selkern.study.folder import Folder
from selkern.study.recording import cli, figures
from selkern.study.recording.cli import main
from selkern.study.recording.measure import measure, reliable_share
from selkern.study.recording.report import differentiable_from, make_report, tell_dimensions
from selkern.study.statistics import Interval

STIMULI, NEURONS = 90, 120


def responses(exponent: float) -> np.ndarray:
    """Responses whose spectrum, with no mean removed, is exactly a power law."""
    generator = np.random.default_rng(0)
    left = np.linalg.qr(generator.normal(size=(STIMULI, STIMULI)))[0]
    right = np.linalg.qr(generator.normal(size=(NEURONS, STIMULI)))[0]
    return left * np.arange(1, STIMULI + 1) ** (-exponent / 2) @ right.T


def almost_twice(clean: np.ndarray) -> np.ndarray:
    """Two repeats that differ by little more than rounding."""
    return np.stack([clean, clean * (1 + 1e-9)])


def as_recording(repeats: np.ndarray) -> Recording:
    return Recording(*torch.from_numpy(repeats))


def with_noise(clean: np.ndarray, deviation: float) -> np.ndarray:
    """Two repeats with independent noise."""
    generator = np.random.default_rng(1)
    return clean + deviation * generator.normal(size=(2, *clean.shape))


@pytest.fixture
def recording(tmp_path):
    """A file almost without noise, of exponent 1.3."""
    path = tmp_path / "recording.npy"
    np.save(path, almost_twice(responses(1.3)))
    return path


@pytest.fixture
def spectra(tmp_path):
    """The folder of a spectrum study of two networks, of exponents 0.5 and 1 or 2.

    The one of 0.5 holds for ranks 5 to 50 alone.
    """
    broken = [9.0] * 4 + [n**-0.5 for n in range(5, 51)] + [float(n) ** -4 for n in range(51, 61)]
    folder = tmp_path / "spectra"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({"study": "spectrum"}))
    clean = {"perturbation": "none", "strength": 0, "accuracy": 0.9}
    rows = []
    for regularizer, exponent in (("none", 2), ("all layers", 1)):
        law = [float(n) ** -exponent for n in range(1, 41)]
        layers = {"hidden1": {"spectrum": broken}, "hidden2": {"spectrum": law}}
        kind = {"architecture": "mlp", "regularizer": regularizer, "seed": 0}
        rows.append({**clean, **kind, "layers": layers})
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
    assert (row["reliable share"], row["negative values"]) == (pytest.approx(1), 0)
    assert "The whole of 1.300 [" in (output / "report.md").read_text()
    assert (output / "recording.png").stat().st_size > 0


@pytest.mark.parametrize("text", ["1.32", "1.334", "5/3", "1.5", "1.04", "3", "3.01"])
def test_a_code_is_differentiable_where_its_exponent_is_above_1_and_2_over_d(text):
    exponent = Fraction(text)
    smallest = next(d for d in itertools.count(1) if exponent > 1 + Fraction(2, d))
    assert differentiable_from(float(exponent)) == smallest


@pytest.mark.parametrize(
    ("exponent", "low", "high", "told"),
    [
        (1.3, 1.25, 1.35, "above that from d = 9 on. None of it is above up to d = 5."),
        (1.0, 0.98, 1.02, "it cannot be told. None of it is above up to d = 100."),
        (1.02, 1.0, 1.04, "it cannot be told. None of it is above up to d = 50."),
        (0.8, 0.7, 1.0, "The whole of 0.800 [0.700, 1.000] is not above that for any d."),
        (1.3, None, None, "1.300, which has no interval, is above that from d = 7 on."),
    ],
)
def test_a_dimension_is_told_where_the_whole_interval_is_above(exponent, low, high, told):
    assert tell_dimensions(Interval(exponent, low, high, 1)).endswith(told)


@pytest.mark.parametrize(
    ("last", "reason"), [("30", "below 0.8"), ("90", "fitted values are negative, more than 10%")]
)
def test_nothing_is_told_of_dimensions_where_the_fit_is_bad(last, reason, tmp_path, capsys):
    path, output = tmp_path / "noisy.npy", tmp_path / "out"
    np.save(path, with_noise(responses(1.3), 0.1))
    assert main(["--data", str(path), "--output", str(output), "--last", last, "--quiet"]) == 0
    remarks = json.loads((output / "summary.json").read_text())["remarks"]
    assert reason in remarks[0]
    assert "differentiable" not in " ".join(remarks)
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith("The exponent is not to be relied on: ")
    assert reason in printed


def test_noise_that_the_repeats_do_not_share_leaves_the_exponent():
    found = measure(as_recording(with_noise(responses(1.0), 0.02)), first=3, last=15)
    assert float(found.fit.exponent) == pytest.approx(1.0, abs=3 * found.standard_error(15))
    assert 0 < found.standard_error(15) < 0.2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_reliable_share_is_that_of_the_signal(share):
    generator = np.random.default_rng(2)
    signal = np.sqrt(share) * generator.normal(size=(400, 300))
    mean = 10 * generator.normal(size=300)
    repeats = torch.from_numpy(mean + with_noise(signal, np.sqrt(1 - share)))
    assert reliable_share(*repeats) == pytest.approx(share, abs=0.02)


def test_the_interval_is_1_96_standard_deviations_over_halves_to_either_side():
    found = measure(as_recording(almost_twice(responses(1.0))), first=3, last=20, shuffles=1)
    assert len(found.halves(20)) == 20
    width = 1.96 * np.std(found.halves(20), ddof=1)
    assert found.exponent.mean == pytest.approx(1.0)
    assert found.exponent.high - found.exponent.mean == pytest.approx(width)
    assert found.exponent.mean - found.exponent.low == pytest.approx(width)


@pytest.mark.parametrize(("last", "halves_last"), [(15, 15), (40, 30)])
def test_a_half_has_both_repeats_of_its_stimuli(last, halves_last):
    noise = np.random.default_rng(1).normal(size=(2, 60, NEURONS))
    repeat1, repeat2 = torch.from_numpy(responses(1.0)[:60] * 20 + noise)
    found = measure(Recording(repeat1, repeat2), first=3, last=last, shuffles=2, seed=4)
    generator = torch.Generator().manual_seed(4)
    analysis.cvpca(repeat1, repeat2, 2, generator)
    for exponent in found.halves(last):
        rows = torch.randperm(60, generator=generator)[:30]
        half = analysis.cvpca(repeat1[rows], repeat2[rows], 2, generator)
        expected = analysis.fit_power_law(half, 3, halves_last).exponent
        assert exponent == pytest.approx(float(expected))
    assert (len(found.halves(last)), found.halves_last) == (20, halves_last)
    assert f"halves of the stimuli (ranks 3 to {halves_last})" in " ".join(
        make_report("made up", found, [], shuffles=2).about
    )


def test_halves_that_have_too_few_ranks_give_no_interval():
    found = measure(as_recording(almost_twice(responses(1.0)[:20])), first=10, last=20)
    assert found.halves(20) == []
    assert (found.exponent.low, found.exponent.high) == (None, None)


def test_the_seed_decides_shuffles_and_halves():
    repeats = as_recording(with_noise(responses(1.0)[:30], 0.1))
    once, again, other = (measure(repeats, shuffles=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(once.spectrum, again.spectrum)
    assert torch.equal(once.half_spectra, again.half_spectra)
    assert not torch.equal(once.half_spectra, other.half_spectra)
    assert not torch.equal(once.spectrum, other.spectrum)


def test_networks_stand_beside_the_recording_on_the_same_ranks(spectra, tmp_path, capsys):
    # The recording's power law is of exponent 1 up to rank 40, and steeper from there on.
    ranks = np.arange(1, STIMULI + 1)
    kink = np.where(ranks <= 40, 1 / ranks, 40**2 / ranks**3.0)
    left, _, right = np.linalg.svd(responses(1.0), full_matrices=False)
    recording = tmp_path / "kink.npy"
    np.save(recording, almost_twice(left * np.sqrt(kink) @ right))
    fitted = slice(4, 50)
    steep = -np.polyfit(np.log(ranks[fitted]), np.log(kink[fitted]), 1, w=ranks[fitted] ** -0.5)[0]
    output = tmp_path / "out"
    options = ["--data", str(recording), "--spectra", str(spectra), "--output", str(output)]
    assert main([*options, "--first", "5", "--last", "50", "--shuffles", "2", "--quiet"]) == 0
    printed = capsys.readouterr().out
    titles, _, of_recording = printed.splitlines()[-5:-2]
    assert titles == "|  | ranks 5 to 50 | hidden1, ranks 5 to 50 | hidden2, ranks 5 to 40 |"
    cells = [cell.split(" [")[0] for cell in of_recording.split(" | ")]
    assert cells == ["| recording", f"{steep:.2f}", f"{steep:.2f}", "1.00"]
    assert "| mlp, none |  | 0.50 | 2.00 |" in printed
    assert "| mlp, all layers |  | 0.50 | 1.00 |" in printed
    assert all(line in (output / "report.md").read_text() for line in printed.splitlines())
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [(row["first"], row["last"]) for row in rows] == [(5, 50), *[(5, 50), (5, 40)] * 2]
    exponents = [row["exponent"] for row in rows]
    assert exponents == pytest.approx([steep, 0.5, 2.0, 0.5, 1.0], abs=1e-6)
    of_recording = [row["recording's exponent"] for row in rows[1:]]
    assert of_recording == pytest.approx([steep, 1.0, steep, 1.0], abs=1e-6)


def test_a_layer_of_too_few_ranks_has_no_exponent_beside_it(recording, spectra, tmp_path, capsys):
    options = ["--data", str(recording), "--spectra", str(spectra), "--shuffles", "1"]
    assert main([*options, "--first", "40", "--output", str(tmp_path / "out"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "hidden2, only 40 ranks |" in printed
    assert printed.count(" | - |\n") == 3


def test_the_recordings_values_are_drawn_above_all_lines(tmp_path, monkeypatch):
    drawn = figures.new_figure(4, 3)
    monkeypatch.setattr(figures, "new_figure", lambda width, height: drawn)
    measured = measure(as_recording(with_noise(responses(1.3), 0.1)), shuffles=1)
    figures.draw_comparison(measured, [], tmp_path / "drawn.png")
    lines = {line.get_label().split(",")[0]: line for line in drawn.axes[0].lines}
    points, fit = lines["recording"], lines["the recording's fit"]
    assert (points.get_marker(), points.get_linestyle(), fit.get_linestyle()) == ("o", "None", "--")
    others = [line for label, line in lines.items() if label != "recording"]
    assert points.get_zorder() > max(line.get_zorder() for line in others)
    points = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == STIMULI


@pytest.fixture
def refusal(capsys):
    """What a command with these options says in its one line as it is refused."""

    def run(*options) -> str:
        with pytest.raises(SystemExit) as refused:
            main([*map(str, options), "--quiet"])
        assert refused.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


@pytest.mark.parametrize("settings", [None, '{"study": "selectivity"}', "[]", "{", b"\xff"])
def test_what_is_no_spectrum_study_is_refused(settings, recording, spectra, tmp_path, refusal):
    path = spectra / "study.json"
    path.unlink()
    if settings is not None:
        path.write_bytes(settings if isinstance(settings, bytes) else settings.encode())
    said = refusal("--data", recording, "--spectra", spectra, "--output", tmp_path / "out")
    assert "--spectra: " in said
    assert "must be the folder of a spectrum study" in said


def test_a_spectrum_study_that_is_not_finished_is_refused(recording, spectra, tmp_path, refusal):
    for leave in (lambda path: path.write_text(""), lambda path: path.unlink()):
        leave(spectra / "results.jsonl")
        said = refusal("--data", recording, "--spectra", spectra, "--output", tmp_path / "out")
        assert "must hold a spectrum study that is finished" in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: {name: value for name, value in row.items() if name != "regularizer"},
        lambda row: {name: value for name, value in row.items() if name != "layers"},
        lambda row: {**row, "perturbation": "FGSM"},
        lambda row: {**row, "architecture": 3},
        lambda row: {**row, "regularizer": "dropout"},
        lambda row: {**row, "regularizer": []},
        lambda row: {**row, "layers": {}},
        lambda row: {**row, "layers": []},
        lambda row: {**row, "layers": {"hidden1": {"width": 3}}},
        lambda row: {**row, "layers": {"hidden1": {"spectrum": 1.0}}},
        lambda row: {**row, "layers": {"hidden1": {"spectrum": [1.0, None]}}},
        lambda row: {**row, "layers": {"hidden1": row["layers"]["hidden1"]}},
        lambda row: [row],
        lambda row: None,
    ],
)
def test_rows_of_another_shape_are_refused(damage, recording, spectra, tmp_path, refusal):
    results = spectra / "results.jsonl"
    first, second = (json.loads(line) for line in results.read_text().splitlines())
    results.write_text(f"{json.dumps(first)}\n{json.dumps(damage(second))}\n")
    said = refusal("--data", recording, "--spectra", spectra, "--output", tmp_path / "out")
    assert "--spectra: " in said
    assert "results.jsonl must hold measurements as a spectrum study writes them" in said


def test_the_folder_of_another_study_is_left_as_it_is(recording, spectra, refusal):
    (spectra / "report.md").write_text("of the spectrum study")
    Folder(spectra).write("mlp-none_seed=0", "clean", [{"accuracy": 0.9}])
    before = {path.name: path.read_bytes() for path in spectra.glob("*.*")}
    said = refusal("--data", recording, "--output", spectra)
    assert "--output: " in said
    assert "holds a spectrum study, and this is a recording study: choose another folder" in said
    after = {path.name: path.read_bytes() for path in spectra.glob("*.*")}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() <= {".lock"}


def test_a_folder_takes_one_recording_at_a_time_and_then_another(
    recording, tmp_path, refusal, capsys
):
    options = ["--data", str(recording), "--output", str(tmp_path / "out"), "--shuffles", "1"]
    with Folder(tmp_path / "out").opened({"study": "recording"}):
        assert "is in use by another study" in refusal(*options)
    for _ in range(2):
        assert main([*options, "--quiet"]) == 0
    assert "| recording | 1.30" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("no")])
def test_a_failure_to_measure_is_not_the_recordings(error, recording, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(cli, "measure", failing)
    with pytest.raises(CommandFailed, match="the recording could not be measured: no"):
        main(["--data", str(recording), "--output", str(tmp_path / "out"), "--quiet"])


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Beside the command, repeats as two files, and among other variables of a .mat file."""
    monkeypatch.chdir(tmp_path)
    first, second = almost_twice(responses(1.3))
    np.save("b.npy", first)
    np.save("a.npy", second)
    content = {"one": first, "two": second, "three": -first, "both": np.stack([first, second])}
    pytest.importorskip("scipy.io").savemat("some.mat", content)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["b.npy", "--second", "a.npy"], "b.npy and a.npy"),
        (["some.mat", "--variables", "one", "two"], "some.mat (one, two)"),
        (["some.mat", "--variables", "both"], "some.mat (both)"),
    ],
)
@pytest.mark.usefixtures("several")
def test_files_and_variables_of_repeats_can_be_chosen(options, name, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["--output", str(output), "--shuffles", "1", "--quiet", "--data", *options]) == 0
    assert "| recording | 1.30" in capsys.readouterr().out
    assert f"Recording: {name}, 90 stimuli" in (output / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data: some.mat must hold one variable of size [2, S, N]"),
        (["--variables", "four"], "--data, --variables: some.mat has no variable 'four'"),
        (["--variables", "one", "two", "three"], "--variables: must be one name or two, got 3"),
        (["--variables", "one", "one"], "--data: the repeats must be two measurements"),
        (["--second", "a.npy"], "--second: must come with a .npy file as --data, got some.mat"),
    ],
)
@pytest.mark.usefixtures("several")
def test_choices_that_a_matlab_file_does_not_have_are_refused(options, message, tmp_path, refusal):
    assert message in refusal("--data", "some.mat", "--output", tmp_path / "out", *options)


NOISE = np.random.default_rng(3).normal(size=(2, 30, 40))
SAME_TO_ALL = np.broadcast_to(NOISE[:, :1], NOISE.shape)


@pytest.mark.parametrize(
    ("repeats", "options", "message"),
    [
        (np.ones((2, 8, 20)), [], "--data: there must be at least two ranks from 11 to 500, got 8"),
        (np.ones((2, 30, 20)), ["--last", "11"], "--last: must be above --first, 11, got 11"),
        (SAME_TO_ALL * (1 + 1e-16 * NOISE), [], "--data: the responses must vary over stimuli"),
        (np.stack([NOISE[0], SAME_TO_ALL[0]]), [], "vary over stimuli, got repeat 2"),
        (np.stack([NOISE[0], NOISE[0]]), [], "--data: the repeats must be two measurements"),
        (np.stack([NOISE[0], -NOISE[0]]), [], "--data: the repeats must have responses to the"),
        (
            np.stack([NOISE[0] + 9, NOISE[0] - 9]),
            [],
            "must have responses to the stimuli in common",
        ),
        (NOISE, ["--variables", "a"], "--variables: must come with a .mat file as --data, got "),
        (NOISE, ["--second", "missing.npy"], "--data, --second: there is no missing.npy"),
        (None, [], "there is no"),
    ],
)
def test_recordings_that_cannot_be_measured_are_refused(
    repeats, options, message, tmp_path, refusal
):
    path = tmp_path / "recording.npy"
    if repeats is not None:
        np.save(path, repeats)
    assert message in refusal("--data", path, "--output", tmp_path / "out", *options)
