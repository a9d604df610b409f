"""Recipes as frozen, typed trees."""
