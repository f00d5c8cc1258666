"""The tables of a preference store, and the rows that its values become."""

import json
from types import MappingProxyType
from typing import Any

from aligncap.alignment.measuring import read_facts, write_facts
from aligncap.preference.values import Candidate, Clip, Finding, Judgement, Provenance
from aligncap.storage import canonical_json

VERSION = "1"
"""Of the tables; a store of another version is refused."""

SCHEMA = (
    "CREATE TABLE clips (utterance TEXT PRIMARY KEY, file TEXT NOT NULL, facts TEXT,"
    " emotion TEXT, gender TEXT, captions TEXT NOT NULL)",
    "CREATE TABLE sources (source TEXT PRIMARY KEY, model TEXT NOT NULL, fingerprint TEXT NOT NULL,"
    " method TEXT NOT NULL, options TEXT NOT NULL, seed INTEGER NOT NULL, version TEXT NOT NULL)",
    "CREATE TABLE candidates (candidate TEXT PRIMARY KEY, utterance TEXT NOT NULL"
    " REFERENCES clips, language TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX candidates_of ON candidates (utterance, language)",
    # One caption may be found by several models; it is judged once.
    "CREATE TABLE findings (candidate TEXT NOT NULL REFERENCES candidates, source TEXT NOT NULL"
    " REFERENCES sources, place INTEGER NOT NULL, token_ids TEXT NOT NULL, log_probability REAL,"
    " PRIMARY KEY (candidate, source))",
    "CREATE TABLE judges (number INTEGER PRIMARY KEY, signature TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL)",
    "CREATE TABLE judgements (candidate TEXT NOT NULL REFERENCES candidates, judge TEXT NOT NULL,"
    " score REAL NOT NULL, parts TEXT NOT NULL, reason TEXT NOT NULL,"
    " PRIMARY KEY (candidate, judge))",
    "CREATE TABLE annotations (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " annotator TEXT NOT NULL, low TEXT NOT NULL, high TEXT NOT NULL, first TEXT NOT NULL,"
    " second TEXT NOT NULL, choice TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0)",
    # What one person says of one pair counts once, from however many windows it comes.
    "CREATE UNIQUE INDEX annotated_once ON annotations (annotator, low, high) WHERE NOT undone",
    "CREATE TABLE pairs (number INTEGER PRIMARY KEY, builder TEXT NOT NULL, chosen TEXT NOT NULL"
    " REFERENCES candidates, rejected TEXT NOT NULL REFERENCES candidates, margin REAL NOT NULL,"
    " utterance TEXT NOT NULL, language TEXT NOT NULL, UNIQUE (builder, chosen, rejected))",
    "CREATE TABLE builders (number INTEGER PRIMARY KEY, builder TEXT NOT NULL UNIQUE)",
)

PUT_CLIP = (
    "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (utterance) DO UPDATE SET"
    " file = coalesce(nullif(excluded.file, ''), file), facts = coalesce(excluded.facts, facts),"
    " emotion = coalesce(excluded.emotion, emotion), gender = coalesce(excluded.gender, gender),"
    " captions = coalesce(nullif(excluded.captions, '{}'), captions)"
)
"""What is newly known of a clip goes before what was known; what is not known changes nothing."""

Values = tuple[Any, ...]


def row_of_clip(clip: Clip) -> Values:
    """A row of `clips`."""
    captions = {name: list(texts) for name, texts in clip.references.items()}
    facts = write_facts(clip.facts) if clip.facts else None
    said = canonical_json(captions)
    return (clip.utterance, clip.file, facts, clip.emotion, clip.gender, said)


def clip_of_row(row: Values) -> Clip:
    """The clip that `row_of_clip` wrote."""
    utterance, file, facts, emotion, gender, said = row
    captions = {name: tuple(texts) for name, texts in json.loads(said).items()}
    heard = read_facts(facts) if facts else None
    return Clip(utterance, file, heard, emotion, gender, MappingProxyType(captions))


def row_of_source(provenance: Provenance) -> Values:
    """A row of `sources`."""
    options = canonical_json(dict(provenance.options))
    named = (provenance.model, provenance.fingerprint, provenance.method, options)
    return (provenance.key, *named, provenance.seed, provenance.version)


def source_of_row(row: Values) -> Provenance:
    """The provenance that `row_of_source` wrote."""
    _, model, fingerprint, method, options, seed, version = row
    return Provenance(
        model=model,
        fingerprint=fingerprint,
        method=method,
        options=MappingProxyType(json.loads(options)),
        seed=seed,
        version=version,
    )


def rows_of_finding(finding: Finding, source: str) -> tuple[list[Values], list[Values]]:
    """Rows of `candidates` and of `findings`."""
    candidates, findings = [], []
    for place, one in enumerate(finding.candidates):
        candidates.append((one.key, one.utterance, one.language, one.text))
        ids = json.dumps(one.token_ids)
        findings.append((one.key, source, place, ids, one.log_probability))
    return candidates, findings


def candidate_of_row(row: Values) -> Candidate:
    """A candidate: utterance, language, text, token_ids, log_probability, method."""
    utterance, language, text, ids, log_probability, method = row
    return Candidate(utterance, language, text, tuple(json.loads(ids)), log_probability, method)


def row_of_judgement(judgement: Judgement) -> Values:
    """A row of `judgements`."""
    parts = canonical_json(dict(judgement.parts), ascii_only=True)
    return (judgement.candidate, judgement.judge, judgement.score, parts, judgement.reason)


def judgement_of_row(row: Values) -> Judgement:
    """The judgement that `row_of_judgement` wrote."""
    candidate, judge, score, parts, reason = row
    return Judgement(candidate, judge, score, MappingProxyType(json.loads(parts)), reason)
