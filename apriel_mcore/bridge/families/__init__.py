"""What each model family's config.json means: one file a family. How to add one: docs/how-to."""
