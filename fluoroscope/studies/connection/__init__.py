"""Seed 003: does a network of slots, connected pair by pair, reason?"""
