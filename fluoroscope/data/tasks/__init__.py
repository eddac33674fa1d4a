"""Tasks: samples, prompt forms and exact scorers that steering and policies are judged by."""
