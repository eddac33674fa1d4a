"""Plug-in and fine-tuning: a layer of a large model inside a small one, and which layer."""
