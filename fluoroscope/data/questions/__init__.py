"""Questions that are answered in writing, for models that read a text and write one."""
