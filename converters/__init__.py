"""Checkpoints to GGUF files that embed and generate: `gritdesk convert CHECKPOINT OUT.gguf --type Q8_0`."""
