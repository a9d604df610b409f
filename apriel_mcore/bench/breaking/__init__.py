"""What breaks in `apriel bench chaos`, and how we see that nothing was lost."""
