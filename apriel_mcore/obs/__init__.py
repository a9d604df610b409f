"""What a run writes down about itself: events, spans, the timeline, and who is late."""
