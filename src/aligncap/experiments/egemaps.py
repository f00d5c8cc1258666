"""The rival that needs no captioner: openSMILE's eGeMAPS functionals and a support vector machine.

Trained and tested on the same speakers as the captioner, corpus by corpus; the penalty is chosen
by cross-validation over training speakers. Needs the `dev` extra.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from aligncap.audio.files import load
from aligncap.corpora.manifest import Utterance
from aligncap.errors import MissingModelError
from aligncap.storage import atomic_file
from aligncap.values import RATE_HZ

KERNELS = ("linear", "rbf")
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

Functionals = NDArray[np.float64]


def functionals(utterances: Sequence[Utterance], cache: Path) -> Functionals:
    """eGeMAPSv02 functionals, shape [utterances, 88]; those in `cache` (.npz) are not measured
    again. Raises MissingModelError without openSMILE."""
    try:
        import opensmile
    except ModuleNotFoundError as error:
        raise MissingModelError(
            "eGeMAPS needs openSMILE, which is not installed: pip install 'aligncap[dev]'"
        ) from error
    known: dict[str, Functionals] = {}
    if cache.exists():
        with np.load(cache, allow_pickle=False) as stored:
            known = dict(zip(stored["names"].tolist(), stored["values"], strict=True))
    missing = [one for one in utterances if str(one.path) not in known]
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    for one in track(missing, "eGeMAPS", console=Console(stderr=True), disable=not missing):
        known[str(one.path)] = smile.process_signal(load(one.path).samples, RATE_HZ).to_numpy()[0]
    if missing:
        with atomic_file(cache, "wb") as file:
            np.savez(file, names=np.array(list(known)), values=np.stack(list(known.values())))
    return np.stack([known[str(one.path)] for one in utterances])


def svm_answers(
    train: Sequence[Utterance],
    train_values: Functionals,
    test_values: Functionals,
    *,
    kernel: str,
) -> list[str]:
    """The emotion that a support vector machine names for each test row."""
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    labels = np.array([one.emotion for one in train])
    speakers = np.array([one.speaker for one in train])
    machine = make_pipeline(StandardScaler(), SVC(kernel=kernel, class_weight="balanced"))
    search = GridSearchCV(
        machine,
        {"svc__C": _PENALTIES},
        scoring="balanced_accuracy",
        cv=GroupKFold(min(5, len(set(speakers.tolist())))),
    )
    search.fit(train_values, labels, groups=speakers)
    answers: list[str] = search.predict(test_values).tolist()
    return answers
