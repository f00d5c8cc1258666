"""Fit the gender model of `aligncap.prosody.measurement`; prints its gender_weights.json.

    python benchmarks/fit_gender.py ../shared/data/speech

Training speakers only; every corpus counts alike. Accuracy is cross-validated over speakers.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aligncap.audio import load
from aligncap.data.manifest import Utterance, read_manifest, trusted_gender
from aligncap.data.splits import split_of
from aligncap.prosody.measurement import envelope_cues, gender_cues, log_mel
from aligncap.prosody.pitch import pitch_track

CORPORA = ("ravdess", "emodb", "nemo", "ased")
CLIPS_A_SPEAKER = 60


def cues_of(utterance: Utterance) -> np.ndarray | None:
    """The cues of a clip, or None where too little is voiced."""
    waveform = load(utterance.path)
    track, mel = pitch_track(waveform), log_mel(waveform)
    envelope = envelope_cues(mel, track.voiced)
    if envelope is None:
        return None
    return gender_cues(float(np.median(track.frequency_hz[track.voiced])), envelope)


def main(folder: Path) -> None:
    """Fit, report and print."""
    rows, labels, speakers, corpora = [], [], [], []
    counts: dict[str, int] = {}
    for corpus in CORPORA:
        for one in read_manifest(folder / corpus / "manifest.jsonl"):
            speaker = str(one.speaker)
            if not (split_of(one) == "train" and trusted_gender(one)):
                continue
            counts[speaker] = counts.get(speaker, 0) + 1
            if counts[speaker] > CLIPS_A_SPEAKER:
                continue
            cues = cues_of(one)
            if cues is not None:
                rows.append(cues)
                labels.append(one.gender == "female")
                speakers.append(speaker)
                corpora.append(corpus)
    x, y, groups, names = map(np.array, (rows, labels, speakers, corpora))
    weights = np.array([1 / (names == name).sum() for name in names]) * len(names) / len(CORPORA)
    machine = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    chance = cross_val_predict(
        machine, x, y, groups=groups, cv=GroupKFold(8), method="predict_proba",
        params={"logisticregression__sample_weight": weights},
    )[:, 1]  # fmt: skip
    sure = (chance < 0.15) | (chance > 0.85)
    for name in CORPORA:
        own = names == name
        right = (chance > 0.5) == y
        print(
            f"# {name}: {own.sum()} clips, right {right[own].mean():.3f}; "
            f"sure {sure[own].mean():.3f}, right where sure {right[own & sure].mean():.3f}"
        )
    for gender in (True, False):
        medians = [math.exp(np.mean(x[(y == gender) & (names == n), 0])) for n in CORPORA]
        print(f"# {'female' if gender else 'male'} median pitch by corpus, Hz:", np.round(medians))
    machine.fit(x, y, logisticregression__sample_weight=weights)
    scaler, model = machine[0], machine[1]
    table = {"means": scaler.mean_, "scales": scaler.scale_, "weights": model.coef_[0]}
    rounded = {name: [round(float(v), 4) for v in values] for name, values in table.items()}
    print(json.dumps({**rounded, "bias": round(float(model.intercept_[0]), 4)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
