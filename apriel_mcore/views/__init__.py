"""What people look at: pages, tables and charts, made from what a run wrote down."""
