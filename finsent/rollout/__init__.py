"""Rollouts of model versions: stages of a canary, decisions, the audit log, shadows and gates."""
