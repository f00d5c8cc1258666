"""The paper's baselines (§4.1, Table 1): captioning systems of others on this project's seam.

`secap` is SECap, `htsat_bart` WavCaps' HTSAT-BART; `released` reads the checkpoints that their
authors published. Each is a connector (`captioner.connectors`), trained by the recipes of
`recipes/baselines`; candidates, judges and DPO are those of our own system.
"""
