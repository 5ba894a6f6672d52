"""Consent, QC, the gate, and the mask over every text: who may be used and named."""
