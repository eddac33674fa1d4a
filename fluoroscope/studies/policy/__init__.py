"""A policy that learns when to steer, token by token."""
